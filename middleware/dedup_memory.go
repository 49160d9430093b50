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
	// forgotten. 0 means 100,000, which takes some 30 MB. Events being handled
	// come on top and are never forgotten.
	Size int

	// Retention is how long a handled event is remembered at most. 0 means 1 hour.
	Retention time.Duration
}

// MemoryDedup is a [DedupStore] in the memory of one process: it knows nothing
// of what other replicas, or the process before this one, have handled.
type MemoryDedup struct {
	size      int
	retention time.Duration

	mu        sync.Mutex // guards what follows
	events    map[DedupKey]dedupMark
	done      []doneEvent // ring in the order of completion
	first, n  int         // of done
	lastToken uint64
}

// dedupMark is the state of one key: claimed by token, or done.
type dedupMark struct {
	token uint64
	done  bool
}

type doneEvent struct {
	key DedupKey
	at  time.Time
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
	return &MemoryDedup{size: cfg.Size, retention: cfg.Retention, events: make(map[DedupKey]dedupMark)}, nil
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
	s.expire()
	if mark, known := s.events[key]; known {
		if mark.done {
			return Claim{State: AlreadyDone}, nil
		}
		return Claim{State: ClaimBusy}, nil
	}
	s.lastToken++
	s.events[key] = dedupMark{token: s.lastToken}
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
	s.events[key] = dedupMark{token: token, done: true}
	if s.n == s.size {
		s.forgetFirst()
	}
	s.push(doneEvent{key: key, at: time.Now()})
	return nil
}

// Release gives a claim up.
func (s *MemoryDedup) Release(_ context.Context, key DedupKey, token uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.check(key, token) == nil {
		delete(s.events, key)
	}
	return nil
}

// check returns whether a claim is the caller's. Called with mu held.
func (s *MemoryDedup) check(key DedupKey, token uint64) error {
	if mark, known := s.events[key]; !known || mark.done || mark.token != token {
		return ErrClaimLost
	}
	return nil
}

// expire forgets what is older than the retention. Called with mu held.
func (s *MemoryDedup) expire() {
	if s.n == 0 {
		return
	}
	oldest := time.Now().Add(-s.retention)
	for s.n > 0 && s.done[s.first].at.Before(oldest) {
		s.forgetFirst()
	}
}

func (s *MemoryDedup) forgetFirst() {
	delete(s.events, s.done[s.first].key)
	s.done[s.first] = doneEvent{}
	s.first = (s.first + 1) % len(s.done)
	s.n--
}

// push appends to the ring, which grows up to size.
func (s *MemoryDedup) push(d doneEvent) {
	if s.n == len(s.done) {
		bigger := make([]doneEvent, min(max(64, 2*s.n), s.size))
		for i := range s.n {
			bigger[i] = s.done[(s.first+i)%len(s.done)]
		}
		s.done, s.first = bigger, 0
	}
	s.done[(s.first+s.n)%len(s.done)] = d
	s.n++
}
