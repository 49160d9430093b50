package sql

import (
	"context"
	"slices"
	"sync"
	"time"
)

// settler writes what is settled: a statement for all that came together, so that a
// claim of a thousand messages costs one deletion.
//
//	claim, exception ──► pending ──► run, 5 ms later ──► the database
//	                        ▲                 │
//	                        └──── failed ─────┘
type settler struct {
	transport *Transport
	signal    chan struct{} // one token: something is pending

	mu         sync.Mutex // guards what follows; taken while consumers are locked
	claims     map[*claim]*consumer
	exceptions []int64
	flushes    []chan error // wait for all that is pending
}

const (
	settlePause   = 5 * time.Millisecond  // so that more comes together
	progressPause = 50 * time.Millisecond // between writes of what is settled of one claim
)

func newSettler(t *Transport) *settler {
	return &settler{transport: t, signal: make(chan struct{}, 1), claims: make(map[*claim]*consumer)}
}

// claim notes that a claim has changed. Called with the consumer locked.
func (s *settler) claim(c *consumer, cl *claim) {
	if cl.id == 0 { // of an ephemeral subscription
		return
	}
	s.mu.Lock()
	s.claims[cl] = c
	s.mu.Unlock()
	token(s.signal)
}

// exception notes that an exception is settled.
func (s *settler) exception(id int64) {
	s.mu.Lock()
	s.exceptions = append(s.exceptions, id)
	s.mu.Unlock()
	token(s.signal)
}

// flush returns when all that is settled is written, or with why it could not be.
func (s *settler) flush(ctx context.Context) error {
	done := make(chan error, 1)
	s.mu.Lock()
	s.flushes = append(s.flushes, done)
	s.mu.Unlock()
	token(s.signal)
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *settler) run(ctx context.Context) {
	retry := settlePause
	for {
		select {
		case <-s.signal:
		case <-ctx.Done():
			return
		}
		again, err := s.write(ctx)
		switch {
		case err != nil:
			s.transport.store.log.Warn("what was settled waits for the database", "error", err)
			retry = min(2*retry, maxRetry)
			wait(ctx, retry)
			token(s.signal)
		case again > 0:
			retry = settlePause
			s.pause(ctx, again)
			token(s.signal)
		default:
			retry = settlePause
			s.pause(ctx, settlePause)
		}
	}
}

// pause waits for more, unless somebody waits for it.
func (s *settler) pause(ctx context.Context, d time.Duration) {
	s.mu.Lock()
	hurry := len(s.flushes) > 0
	s.mu.Unlock()
	if !hurry {
		wait(ctx, d)
	}
}

// write writes all that is pending, and returns after what time there is more to write.
func (s *settler) write(ctx context.Context) (again time.Duration, err error) {
	s.mu.Lock()
	claims, exceptions, flushes := s.claims, s.exceptions, s.flushes
	s.claims, s.exceptions, s.flushes = make(map[*claim]*consumer), nil, nil
	s.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	store, owner := s.transport.store, s.transport.owner
	var finished []int64
	var progress []progressRow
	now := time.Now()
	written := make(map[*claim]*consumer)
	for cl, c := range claims {
		c.mu.Lock()
		switch {
		case cl.lost || !cl.changed || cl.cutting: // who cuts it notes it again
			delete(claims, cl)
		case cl.left == 0:
			finished = append(finished, cl.id)
		case len(flushes) == 0 && now.Sub(cl.written) < progressPause:
			if wait := progressPause - now.Sub(cl.written); again == 0 || wait < again {
				again = wait
			}
		default:
			p := progressRow{id: cl.id}
			p.first, p.settled = cl.progress()
			progress = append(progress, p)
			cl.changed, cl.written = false, now
			written[cl] = c
			delete(claims, cl)
		}
		c.mu.Unlock()
	}
	err = store.settle(ctx, owner, finished, progress, exceptions)
	s.mu.Lock()
	for cl, c := range claims { // what waits, and when it has failed, what was finished
		if err != nil || !slices.Contains(finished, cl.id) {
			s.claims[cl] = c
		}
	}
	if err != nil {
		s.exceptions = append(s.exceptions, exceptions...)
	}
	s.mu.Unlock()
	if err != nil {
		for cl, c := range written {
			s.failed(c, cl)
		}
	}
	for _, done := range flushes {
		done <- err
	}
	return again, err
}

// failed notes a claim again whose progress could not be written.
func (s *settler) failed(c *consumer, cl *claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cl.changed, cl.written = true, time.Time{}
	s.claim(c, cl)
}

// progressRow is what is settled of a claim that is not finished.
type progressRow struct {
	id, first int64
	settled   []byte
}

// settle deletes finished claims and exceptions, and writes the progress of others.
func (s *store) settle(ctx context.Context, owner string, finished []int64, progress []progressRow, exceptions []int64) error {
	const most = 1000
	for _, t := range []struct {
		table string
		ids   []int64
	}{{"claims", finished}, {"deliveries", exceptions}} {
		for len(t.ids) > 0 {
			part := t.ids[:min(len(t.ids), most)]
			t.ids = t.ids[len(part):]
			if _, err := s.exec(ctx, s.db, `{delete from} {`+t.table+`} {t by id} where t.id in (`+idList(part)+`) and t.owner = ?`, owner); err != nil {
				return err
			}
		}
	}
	for _, p := range progress {
		if _, err := s.exec(ctx, s.db, `update {claims} set first = ?, settled = ? where id = ? and owner = ?`, p.first, p.settled, p.id, owner); err != nil {
			return err
		}
	}
	return nil
}
