package middleware_test

import (
	"context"
	"sync"
	"time"

	"github.com/gotidings/tidings/middleware"
)

// leases is a store such as one in a database: claims run out.
type leases struct {
	lease time.Duration

	mu     sync.Mutex // guards what follows
	events map[middleware.DedupKey]leased
	last   uint64
	calls  []string
	ctxErr error // of the last settling
	faults map[string]error
	hang   bool // Renew fails, and only when its context ends
}

type leased struct {
	token uint64
	until time.Time
	done  bool
}

func newLeases(lease time.Duration) *leases {
	return &leases{lease: lease, events: map[middleware.DedupKey]leased{}, faults: map[string]error{}}
}

func (s *leases) Lease() time.Duration     { return s.lease }
func (s *leases) Retention() time.Duration { return 24 * time.Hour }

func (s *leases) call(name string) error {
	s.calls = append(s.calls, name)
	return s.faults[name]
}

func (s *leases) fail(call string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[call] = err
}

func (s *leases) Claim(_ context.Context, key middleware.DedupKey) (middleware.Claim, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.call("claim"); err != nil {
		return middleware.Claim{}, err
	}
	e, known := s.events[key]
	switch {
	case e.done:
		return middleware.Claim{State: middleware.AlreadyDone}, nil
	case known && time.Now().Before(e.until):
		return middleware.Claim{State: middleware.ClaimBusy}, nil
	}
	s.last++
	s.events[key] = leased{token: s.last, until: time.Now().Add(s.lease)}
	return middleware.Claim{State: middleware.Claimed, Token: s.last}, nil
}

func (s *leases) Renew(ctx context.Context, key middleware.DedupKey, token uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if err := s.call("renew"); err != nil {
		return err
	}
	e := s.events[key]
	if e.token != token || e.done || time.Now().After(e.until) {
		return middleware.ErrClaimLost
	}
	e.until = time.Now().Add(s.lease)
	s.events[key] = e
	return nil
}

func (s *leases) Complete(ctx context.Context, key middleware.DedupKey, token uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ctxErr = ctx.Err()
	if err := s.call("complete"); err != nil {
		return err
	}
	e := s.events[key]
	if e.token != token {
		return middleware.ErrClaimLost
	}
	s.events[key] = leased{token: token, done: true}
	return nil
}

func (s *leases) Release(ctx context.Context, key middleware.DedupKey, token uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ctxErr = ctx.Err()
	if s.events[key].token == token {
		delete(s.events, key)
	}
	return s.call("release")
}

// count returns how often a method was called.
func (s *leases) count(call string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.calls {
		if c == call {
			n++
		}
	}
	return n
}
