package middleware

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"time"
)

// MemoryDedupConfig configures [NewMemoryDedup]. The zero value is ready to use.
type MemoryDedupConfig struct {
	// Size is the most handled events remembered; beyond it the oldest are
	// forgotten. 0 means 100,000, which takes some 12 MB. Events being handled
	// come on top and are never forgotten.
	Size int

	// Retention is how long a handled event is remembered at most. 0 means 1 hour.
	Retention time.Duration
}

// MemoryDedup is a [DedupStore] in the memory of one process: it knows nothing
// of what other replicas, or the process before this one, have handled.
type MemoryDedup struct {
	retention time.Duration

	mu        sync.Mutex // guards what follows
	keys      keyHasher
	claimed   map[uint64]uint64 // tokens of the events being handled, by hash
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
		keys:      keyHasher{seed: maphash.MakeSeed()},
		claimed:   make(map[uint64]uint64),
		handled:   newHandledEvents(cfg.Size, cfg.Retention),
	}, nil
}

// Volatile marks the store as forgetting everything when the process ends.
func (s *MemoryDedup) Volatile() {}

// Lease returns 0: a claim lasts as long as the process that holds it.
func (s *MemoryDedup) Lease() time.Duration { return 0 }

// Retention returns how long handled events are remembered at most.
func (s *MemoryDedup) Retention() time.Duration { return s.retention }

// Claim takes an event unless it is taken or done. It returns no error. Another event
// whose hash is the same, if there ever is one, is busy for as long as this one is.
func (s *MemoryDedup) Claim(_ context.Context, key DedupKey) (Claim, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, hash := s.keys.hash(key)
	if _, busy := s.claimed[hash]; busy {
		return Claim{State: ClaimBusy}, nil
	}
	if s.handled.contains(text, hash) {
		return Claim{State: AlreadyDone}, nil
	}
	s.lastToken++
	s.claimed[hash] = s.lastToken
	return Claim{State: Claimed, Token: s.lastToken}, nil
}

// Renew returns [ErrClaimLost] when the claim is not the caller's, and does
// nothing else: claims do not run out here.
func (s *MemoryDedup) Renew(_ context.Context, key DedupKey, token uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, hash := s.keys.hash(key); !s.owns(hash, token) {
		return ErrClaimLost
	}
	return nil
}

// Complete marks a claimed event as done.
func (s *MemoryDedup) Complete(_ context.Context, key DedupKey, token uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, hash := s.keys.hash(key)
	if !s.owns(hash, token) {
		return ErrClaimLost
	}
	delete(s.claimed, hash)
	s.handled.add(text, hash)
	return nil
}

// Release gives a claim up.
func (s *MemoryDedup) Release(_ context.Context, key DedupKey, token uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, hash := s.keys.hash(key); s.owns(hash, token) {
		delete(s.claimed, hash)
	}
	return nil
}

// owns reports whether a claim is that of the token. Called with mu held.
func (s *MemoryDedup) owns(hash, token uint64) bool {
	owner, claimed := s.claimed[hash]
	return claimed && owner == token
}
