package eventstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// Event is an event of the store.
type Event struct {
	Cursor   Cursor // its place
	Topic    string // that it was published to, which is most often its type
	Metadata events.Metadata
	Data     []byte
	Stored   time.Time        // when it was stored, by the database's clock
	Message  *message.Message // as it was published
}

// Cursor is a place in the store. Keep it as it is: what is in it may change.
type Cursor string

func cursorOf(id int64) Cursor { return Cursor(strconv.FormatInt(id, 10)) }

func (c Cursor) id() (int64, error) {
	if c == "" {
		return 0, nil
	}
	id, err := strconv.ParseInt(string(c), 10, 64)
	if err != nil || id < 0 {
		return 0, fmt.Errorf("%w: %q is not a cursor of this store", ErrInvalid, string(c))
	}
	return id, nil
}

// Query says which events. All that is set must hold.
type Query struct {
	Types         []string // patterns of types as in subscriptions: * is one word, # any number of words; none means all
	ID            string
	Source        string
	Subject       string
	CorrelationID string
	CausationID   string    // the id of the event whose handler published them
	From          time.Time // stored at this time or later
	To            time.Time // stored before this time
}

func (q Query) validate() error {
	var faults []error
	for _, pattern := range q.Types {
		if err := transports.ValidatePattern(pattern); err != nil {
			faults = append(faults, fmt.Errorf("%w: Types: %w", ErrInvalid, err))
		}
	}
	if !q.From.IsZero() && !q.To.IsZero() && !q.From.Before(q.To) {
		faults = append(faults, fmt.Errorf("%w: From, %s, is not before To, %s", ErrInvalid, q.From.Format(time.RFC3339), q.To.Format(time.RFC3339)))
	}
	return errors.Join(faults...)
}

// takes looks at what an index or a place says only nearly.
func (q Query) takes(e tsql.Entry) bool {
	md := e.Message.Metadata
	same := func(wanted, is string) bool { return wanted == "" || wanted == is }
	return same(q.ID, e.Message.UUID) && same(q.Source, md[keySource]) && same(q.Subject, md[keySubject]) &&
		same(q.CorrelationID, md[keyCorrelation]) && same(q.CausationID, md[keyCausation]) &&
		(q.From.IsZero() || !e.Published.Before(q.From)) && (q.To.IsZero() || e.Published.Before(q.To)) &&
		(len(q.Types) == 0 || slices.ContainsFunc(q.Types, func(p string) bool { return transports.Match(p, e.Topic) }))
}

// Metadata keys, see package events.
const (
	keySource      = events.AttributePrefix + "source"
	keySubject     = events.AttributePrefix + "subject"
	keyCorrelation = events.AttributePrefix + "correlationid"
	keyCausation   = events.AttributePrefix + "causationid"
)

// index returns the kind of index that finds the fewest events, and what it looks for.
func (q Query) index() (kind, string, bool) {
	for _, by := range []struct {
		kind
		value string
	}{{byID, q.ID}, {byCausation, q.CausationID}, {byCorrelation, q.CorrelationID}, {bySubject, q.Subject}} {
		if by.value != "" {
			return by.kind, by.value, true
		}
	}
	return 0, "", false
}

// Listing is a [Query] a page at a time.
type Listing struct {
	Query
	After  Cursor // the Next of the page before; "" begins
	Newest bool   // the newest first
	Limit  int    // events of a page; 0 means 100, and 1000 is the most
}

// Page is a part of what was found.
type Page struct {
	Events []Event
	Next   Cursor // where the next page begins; "" when there is none
}

const (
	defaultPage = 100
	maxPage     = 1000
)

// List returns a page of events, in the order of their places. An event that was published
// in a transaction that took long appears at the place that it took when it was written,
// which a reader may have passed: follow events with a subscription, not with pages.
func (s *Store) List(ctx context.Context, l Listing) (Page, error) {
	if err := l.validate(); err != nil {
		return Page{}, err
	}
	if l.Limit < 0 || l.Limit > maxPage {
		return Page{}, fmt.Errorf("%w: Limit is %d; it takes 1 to %d, or 0 for %d", ErrInvalid, l.Limit, maxPage, defaultPage)
	}
	if l.Limit == 0 {
		l.Limit = defaultPage
	}
	after, err := l.After.id()
	if err != nil {
		return Page{}, err
	}
	r, err := s.rangeOf(ctx, l.Query)
	if err != nil {
		return Page{}, err
	}
	r.Newest, r.Limit = l.Newest, l.Limit
	if l.Newest && after > 0 {
		r.UpTo = min(r.UpTo, after-1)
	} else {
		r.After = max(r.After, after)
	}
	var page Page
	for r.UpTo > r.After {
		entries, scanned, more, err := s.next(ctx, l.Query, r)
		if err != nil {
			return Page{}, err
		}
		for i, e := range entries {
			if !l.takes(e) {
				continue
			}
			page.Events = append(page.Events, eventOf(e))
			if len(page.Events) == l.Limit {
				if more || i < len(entries)-1 {
					page.Next = cursorOf(e.ID)
				}
				return page, nil
			}
		}
		if !more {
			break
		}
		if l.Newest {
			r.UpTo = scanned - 1
		} else {
			r.After = scanned
		}
	}
	return page, nil
}

// All returns all events of a query in the order of their places. The sequence ends after
// the first error.
func (s *Store) All(ctx context.Context, q Query) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		l := Listing{Query: q, Limit: maxPage}
		for {
			page, err := s.List(ctx, l)
			if err != nil {
				yield(Event{}, err)
				return
			}
			for _, e := range page.Events {
				if !yield(e, nil) {
					return
				}
			}
			if l.After = page.Next; l.After == "" {
				return
			}
		}
	}
}

// Get returns the event of this id, or [ErrNotFound]. An empty source means any. An event that
// was stored twice, because its publisher did not know whether the first time had
// succeeded, is returned as it was the first time.
func (s *Store) Get(ctx context.Context, source, id string) (Event, error) {
	if id == "" {
		return Event{}, fmt.Errorf("%w: the id is empty", ErrInvalid)
	}
	page, err := s.List(ctx, Listing{Query: Query{ID: id, Source: source}, Limit: 1})
	if err != nil {
		return Event{}, err
	}
	if len(page.Events) == 0 {
		return Event{}, fmt.Errorf("%w: %q", ErrNotFound, id)
	}
	return page.Events[0], nil
}

// slack is how far apart the order of places and that of times may be.
const slack = time.Minute

// rangeOf returns the places that a query's times can be at.
func (s *Store) rangeOf(ctx context.Context, q Query) (tsql.Range, error) {
	first, last, err := s.events.bounds(ctx)
	if err != nil {
		return tsql.Range{}, err
	}
	r := tsql.Range{Topics: q.Types, After: max(first-1, 0), UpTo: last}
	if !q.From.IsZero() {
		place, err := s.events.place(ctx, q.From.Add(-slack))
		if err != nil {
			return r, err
		}
		r.After = max(r.After, place-1)
	}
	if !q.To.IsZero() {
		place, err := s.events.place(ctx, q.To.Add(slack))
		if err != nil {
			return r, err
		}
		r.UpTo = min(r.UpTo, place)
	}
	return r, nil
}

// next reads the next part of a range, by an index when there is one.
func (s *Store) next(ctx context.Context, q Query, r tsql.Range) (entries []tsql.Entry, scanned int64, more bool, err error) {
	if kind, value, ok := q.index(); ok {
		entries, scanned, more, ok, err := s.events.find(ctx, kind, value, r)
		if ok || err != nil {
			return entries, scanned, more, err
		}
		r.Limit = maxPage // most of it will be something else
	}
	return s.events.read(ctx, r)
}

func eventOf(e tsql.Entry) Event {
	return Event{
		Cursor: cursorOf(e.ID), Topic: e.Topic, Metadata: *events.DecodeMetadata(e.Message.UUID, e.Message.Metadata),
		Data: e.Message.Payload, Stored: e.Published, Message: e.Message,
	}
}
