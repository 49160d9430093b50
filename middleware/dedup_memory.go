package middleware

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// MemoryDedupConfig configures [NewMemoryDedup]. The zero value is ready to use.
type MemoryDedupConfig struct {
	// Size is the most handled events remembered; beyond it the oldest are
	// forgotten. 0 means 100,000, which takes some 20 MB. Events being handled
	// come on top and are never forgotten.
	Size int

	// Retention is how long a handled event is remembered at most. 0 means 1 hour.
	Retention time.Duration
}

// MemoryDedup is a [DedupStore] in the memory of one process: it knows nothing
// of what other replicas, or the process before this one, have handled.
type MemoryDedup struct {
	retention time.Duration

	mu        sync.Mutex          // guards what follows
	claimed   map[DedupKey]uint64 // tokens of the events being handled, which are few
	lastToken uint64
	handled   handledEvents
}

var _ DedupStore = (*MemoryDedup)(nil)

// NewMemoryDedup makes an empty store. It returns an error for a negative
// setting.
func NewMemoryDedup(cfg MemoryDedupConfig) (*MemoryDedup, error) {
	if cfg.Size < 0 || cfg.Retention < 0 {
		return nil, fmt.Errorf("memory dedup: size is %d and retention is %v; neither may be negative", cfg.Size, cfg.Retention)
	}
	if cfg.Size == 0 {
		cfg.Size = 100_000
	}
	if cfg.Retention == 0 {
		cfg.Retention = time.Hour
	}
	return &MemoryDedup{
		retention: cfg.Retention,
		claimed:   make(map[DedupKey]uint64),
		handled:   newHandledEvents(cfg.Size),
	}, nil
}

// Volatile marks the store as forgetting everything when the process ends.
func (s *MemoryDedup) Volatile() {}

// Lease returns 0: a claim lasts as long as the process that holds it.
func (s *MemoryDedup) Lease() time.Duration { return 0 }

// Retention returns how long handled events are remembered at most.
func (s *MemoryDedup) Retention() time.Duration { return s.retention }

// Claim takes an event unless it is taken or done. It returns no error.
func (s *MemoryDedup) Claim(_ context.Context, key DedupKey) (Claim, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handled.expire(s.retention)
	if _, busy := s.claimed[key]; busy {
		return Claim{State: ClaimBusy}, nil
	}
	if s.handled.contains(key) {
		return Claim{State: AlreadyDone}, nil
	}
	s.lastToken++
	s.claimed[key] = s.lastToken
	return Claim{State: Claimed, Token: s.lastToken}, nil
}

// Renew returns [ErrClaimLost] when the claim is not the caller's, and does
// nothing else: claims do not run out here.
func (s *MemoryDedup) Renew(_ context.Context, key DedupKey, token uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.check(key, token)
}

// Complete marks a claimed event as done.
func (s *MemoryDedup) Complete(_ context.Context, key DedupKey, token uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(key, token); err != nil {
		return err
	}
	delete(s.claimed, key)
	s.handled.add(key)
	return nil
}

// Release gives a claim up.
func (s *MemoryDedup) Release(_ context.Context, key DedupKey, token uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.check(key, token) == nil {
		delete(s.claimed, key)
	}
	return nil
}

// check returns whether a claim is the caller's. Called with mu held.
func (s *MemoryDedup) check(key DedupKey, token uint64) error {
	if owner, claimed := s.claimed[key]; !claimed || owner != token {
		return ErrClaimLost
	}
	return nil
}
