package eventstore

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"time"

	tsql "github.com/gotidings/tidings/transports/sql"
)

// FaultKind is what was done to the store.
type FaultKind string

// What [Store.Verify] finds.
const (
	Changed    FaultKind = "changed"     // a row of an event is not as it was sealed
	Removed    FaultKind = "removed"     // the row of a sealed event is gone, and retention can't have been it
	Inserted   FaultKind = "inserted"    // a row is among the sealed ones, and was not when they were sealed
	SealBroken FaultKind = "seal broken" // a seal does not fit to itself or to the one before
	SealGone   FaultKind = "seal gone"   // a seal is missing, or those after the head that was kept
)

// Fault is one thing that Verify has found.
type Fault struct {
	Kind   FaultKind
	Cursor Cursor // of the event; "" of a seal
	Seal   int64  // number of the seal that says so, 0 for an inserted event
	ID     string // of the event, where there is a row that has one
	Detail string
}

func (f Fault) String() string {
	switch {
	case f.Cursor == "":
		return fmt.Sprintf("%s: seal %d: %s", f.Kind, f.Seal, f.Detail)
	case f.ID == "":
		return fmt.Sprintf("%s: event at %s, seal %d: %s", f.Kind, f.Cursor, f.Seal, f.Detail)
	}
	return fmt.Sprintf("%s: event %s at %s: %s", f.Kind, f.ID, f.Cursor, f.Detail)
}

// Head is the end of the chain: what Verify returns, kept where nobody who can write to the
// database can write, shows whether the chain was made anew or cut off.
type Head struct {
	Seal   int64
	Digest []byte
}

// VerifyOptions are for [Store.Verify].
type VerifyOptions struct {
	Head    Head        // an earlier one, that must be in the chain; zero: none
	OnFault func(Fault) // called for each fault, after which it goes on; nil collects them in the report
}

// Report is what Verify has found.
type Report struct {
	Head    Head
	Seals   int64
	Events  int64   // that are as they were sealed
	Pruned  int64   // that retention has deleted
	Faults  []Fault // empty when all is well, or OnFault is set
	Damaged int64   // number of faults
}

// Verify seals what is new, and goes through all seals and all events: a row that was changed,
// removed or put among the others is named, and so is a seal. An event that was published
// after the last seal was made is not known to Verify, and anybody who may publish may add one
// at the end. It reads the whole log.
func (s *Store) Verify(ctx context.Context, o VerifyOptions) (Report, error) {
	if s.log == nil || s.log.sealer == nil {
		return Report{}, ErrNotSealed
	}
	if err := s.log.catchUpSeals(ctx); err != nil {
		return Report{}, fmt.Errorf("eventstore: seal: %w", err)
	}
	v := &verifier{log: s.log, o: o, late: make(map[int64]bool)}
	if err := v.run(ctx); err != nil {
		return v.report, fmt.Errorf("eventstore: verify: %w", err)
	}
	return v.report, nil
}

type verifier struct {
	log    *sqlLog
	o      VerifyOptions
	report Report
	late   map[int64]bool // places of events in a later seal than their places say
	passed int64          // the place up to which events were compared with what is sealed
	first  int64          // the first place that is there
	old    time.Time      // what was stored before it may have been deleted by retention
}

func (v *verifier) fault(f Fault) {
	v.report.Damaged++
	if v.o.OnFault != nil {
		v.o.OnFault(f)
		return
	}
	v.report.Faults = append(v.report.Faults, f)
}

func (v *verifier) sealFault(kind FaultKind, n int64, format string, args ...any) {
	v.fault(Fault{Kind: kind, Seal: n, Detail: fmt.Sprintf(format, args...)})
}

func (v *verifier) run(ctx context.Context) (err error) {
	if v.first, _, err = v.log.Bounds(ctx); err != nil {
		return err
	}
	if keep := v.log.Retention(); keep > 0 {
		v.old = time.Now().Add(-keep)
	}
	if err := v.chain(ctx); err != nil {
		return err
	}
	for s, err := range v.seals(ctx) {
		if err != nil {
			return err
		}
		if err := v.events(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// seals are those up to the head.
func (v *verifier) seals(ctx context.Context) iter.Seq2[seal, error] {
	return func(yield func(seal, error) bool) {
		const page = 20 // of 48 KB each
		for after := int64(0); ; {
			seals, err := v.log.seals(ctx, after, page)
			if err != nil {
				yield(seal{}, err)
				return
			}
			for _, s := range seals {
				after = s.n
				if v.report.Head.Seal > 0 && s.n > v.report.Head.Seal { // made meanwhile
					return
				}
				if !yield(s, nil) {
					return
				}
			}
			if len(seals) < page {
				return
			}
		}
	}
}

// chain looks at the seals alone, and notes which events are late.
func (v *verifier) chain(ctx context.Context) error {
	var previous seal
	var highest int64
	kept := v.o.Head.Seal == 0
	var head Head
	for s, err := range v.seals(ctx) {
		if err != nil {
			return err
		}
		for n := previous.n + 1; n < s.n; n++ {
			v.sealFault(SealGone, n, "it is missing")
		}
		if s.n == previous.n+1 && !bytes.Equal(s.digest, v.log.digestAfter(previous.digest, &s)) {
			v.sealFault(SealBroken, s.n, "its digest does not fit to it and to the seal before")
		}
		list, err := s.list()
		switch {
		case err != nil:
			v.sealFault(SealBroken, s.n, "%s", err)
		case len(list) == 0:
			if s.events > 0 && (s.last >= v.first || time.UnixMilli(s.newest).After(v.old)) {
				v.sealFault(SealBroken, s.n, "its entries are gone, and retention can't have been it")
			}
			v.report.Pruned += s.events
		case !bytes.Equal(s.entriesDigest, v.log.entriesDigest(s.entries)) || int64(len(list)) != s.events:
			v.sealFault(SealBroken, s.n, "its entries are not those that were sealed")
		}
		for _, e := range list {
			if e.id <= highest {
				v.late[e.id] = true
			}
		}
		highest = max(highest, s.last)
		if s.n == v.o.Head.Seal {
			kept = true
			if !bytes.Equal(s.digest, v.o.Head.Digest) {
				v.sealFault(SealBroken, s.n, "its digest is not that of the head that was kept")
			}
		}
		head = Head{s.n, s.digest}
		v.report.Seals++
		previous = s
	}
	if !kept {
		v.sealFault(SealGone, v.o.Head.Seal, "the chain ends before the head that was kept")
	}
	v.report.Head = head
	return nil
}

// events compares the rows of a seal, and looks for rows among them that are in no seal.
func (v *verifier) events(ctx context.Context, s seal) error {
	list, err := s.list()
	if err != nil || len(list) == 0 {
		v.passed = max(v.passed, s.last)
		return nil //nolint:nilerr // chain has told
	}
	ids := make([]int64, len(list))
	sealed := make(map[int64]bool, len(list))
	for i, e := range list {
		ids[i], sealed[e.id] = e.id, true
	}
	rows := make(map[int64]tsql.Entry)
	for rest := ids; len(rest) > 0; {
		entries, n, err := v.log.Entries(ctx, rest, false)
		if err != nil {
			return err
		}
		for _, e := range entries {
			digest, err := v.log.digestOf(&e)
			if err != nil {
				return err
			}
			rows[e.ID] = tsql.Entry{ID: e.ID, Message: e.Message, Topic: string(digest[:])} // no more than is needed
			rows[e.ID].Message.Payload = nil
		}
		rest = rest[n:]
	}
	for _, want := range list {
		row, there := rows[want.id]
		switch {
		case !there && (v.first == 0 || want.id < v.first) && time.UnixMilli(want.published).Before(v.old):
			v.report.Pruned++
		case !there:
			v.fault(Fault{Kind: Removed, Cursor: cursorOf(want.id), Seal: s.n, Detail: "stored at " + time.UnixMilli(want.published).UTC().Format(time.RFC3339Nano)})
		case row.Topic != string(want.digest[:]):
			v.fault(Fault{Kind: Changed, Cursor: cursorOf(want.id), Seal: s.n, ID: row.Message.UUID, Detail: fmt.Sprintf("it is not as seal %d has it", s.n)})
		default:
			v.report.Events++
		}
	}
	if s.last <= v.passed { // all of it was late
		return nil
	}
	err = v.strangers(ctx, v.passed, s.last, sealed)
	v.passed = s.last
	return err
}

// strangers looks for rows above after and up to last that no seal has.
func (v *verifier) strangers(ctx context.Context, after, last int64, sealed map[int64]bool) error {
	const page = 1000
	for after < last {
		ids, err := v.log.IDs(ctx, after, last, page)
		if err != nil {
			return err
		}
		for _, id := range ids {
			after = id
			if sealed[id] || v.late[id] {
				continue
			}
			if known, err := v.comes(ctx, id); err != nil || known {
				if err != nil {
					return err
				}
				continue
			}
			entries, _, err := v.log.Entries(ctx, []int64{id}, false)
			if err != nil {
				return err
			}
			for _, e := range entries {
				v.fault(Fault{Kind: Inserted, Cursor: cursorOf(id), ID: e.Message.UUID, Detail: "no seal has it, and its place was passed when it was not there"})
			}
		}
		if len(ids) < page {
			return nil
		}
	}
	return nil
}

// comes reports whether an event that no seal had is one whose transaction took long: it
// will be sealed, or was since the chain was read.
func (v *verifier) comes(ctx context.Context, id int64) (bool, error) {
	unknown, err := v.log.Unknown(ctx, sealName, id)
	if err != nil || unknown {
		return unknown, err
	}
	for after := v.report.Head.Seal; ; {
		seals, err := v.log.seals(ctx, after, 1)
		if err != nil || len(seals) == 0 {
			return false, err
		}
		after = seals[0].n
		list, err := seals[0].list()
		if err != nil {
			return false, nil //nolint:nilerr // the next Verify tells of it
		}
		for _, e := range list {
			if e.id == id {
				return true, nil
			}
		}
	}
}
