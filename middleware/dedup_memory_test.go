package middleware_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

func newMemoryDedup(t *testing.T, cfg middleware.MemoryDedupConfig) *middleware.MemoryDedup {
	t.Helper()
	s, err := middleware.NewMemoryDedup(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func key(id any) middleware.DedupKey {
	return middleware.DedupKey{Subscription: subscription, Event: transports.EventKey{Source: "shop", ID: fmt.Sprint(id)}}
}

// claim claims an event and returns the token, 0 when it has none.
func claim(t *testing.T, s *middleware.MemoryDedup, id any, want middleware.ClaimState) uint64 {
	t.Helper()
	c, err := s.Claim(t.Context(), key(id))
	if err != nil || c.State != want {
		t.Errorf("claim of %v: state %v and error %v, want state %v", id, c.State, err, want)
	}
	return c.Token
}

// handle claims an event and marks it as done.
func handle(t *testing.T, s *middleware.MemoryDedup, id any) {
	t.Helper()
	equal(t, "complete", s.Complete(t.Context(), key(id), claim(t, s, id, middleware.Claimed)), nil)
}

func TestMemoryDedupClaimIsExclusiveUntilItEnds(t *testing.T) {
	t.Parallel()
	s := newMemoryDedup(t, middleware.MemoryDedupConfig{})
	first := claim(t, s, 1, middleware.Claimed)
	claim(t, s, 1, middleware.ClaimBusy)
	equal(t, "renew", s.Renew(t.Context(), key(1), first), nil)
	equal(t, "release", s.Release(t.Context(), key(1), first), nil)

	second := claim(t, s, 1, middleware.Claimed)
	if second <= first {
		t.Errorf("fencing token %d after %d", second, first)
	}
	equal(t, "complete", s.Complete(t.Context(), key(1), second), nil)
	claim(t, s, 1, middleware.AlreadyDone)
	claim(t, s, 2, middleware.Claimed)
}

func TestMemoryDedupRefusesAClaimThatIsNotTheCallers(t *testing.T) {
	t.Parallel()
	s := newMemoryDedup(t, middleware.MemoryDedupConfig{})
	stale := claim(t, s, 1, middleware.Claimed)
	equal(t, "release", s.Release(t.Context(), key(1), stale), nil)
	refused := func(id any, token uint64) {
		t.Helper()
		wantErrorIs(t, s.Renew(t.Context(), key(id), token), middleware.ErrClaimLost)
		wantErrorIs(t, s.Complete(t.Context(), key(id), token), middleware.ErrClaimLost)
		equal(t, "release", s.Release(t.Context(), key(id), token), nil)
	}
	refused(1, stale) // free
	refused(1, 0)
	live := claim(t, s, 1, middleware.Claimed)
	refused(1, stale) // claimed by another
	claim(t, s, 1, middleware.ClaimBusy)
	equal(t, "complete", s.Complete(t.Context(), key(1), live), nil)
	refused(1, live) // done, and the mark stays
	claim(t, s, 1, middleware.AlreadyDone)
}

func TestMemoryDedupForgetsAfterItsRetention(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemoryDedup(t, middleware.MemoryDedupConfig{})
		equal(t, "retention", s.Retention(), time.Hour)
		equal(t, "lease", s.Lease(), 0)
		handle(t, s, 1)
		time.Sleep(30 * time.Minute)
		handle(t, s, 2)
		time.Sleep(30 * time.Minute)
		claim(t, s, 1, middleware.AlreadyDone) // to the last moment
		time.Sleep(time.Nanosecond)
		handle(t, s, 1) // a new event
		claim(t, s, 2, middleware.AlreadyDone)
		time.Sleep(30 * time.Minute)
		claim(t, s, 2, middleware.Claimed)
		claim(t, s, 1, middleware.AlreadyDone)
	})
}

func TestMemoryDedupForgetsTheOldestBeyondItsSize(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 2, 100, 511, 512, 513, 1024, 1500} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			s := newMemoryDedup(t, middleware.MemoryDedupConfig{Size: size})
			for id := range 3*size + 1 { // through some blocks
				handle(t, s, id)
				claim(t, s, id, middleware.AlreadyDone)
				claim(t, s, max(0, id-size+1), middleware.AlreadyDone)
				if id >= size {
					forgotten := claim(t, s, id-size, middleware.Claimed)
					equal(t, "release", s.Release(t.Context(), key(id-size), forgotten), nil)
				}
			}
		})
	}
}

func TestMemoryDedupNeverForgetsALiveClaim(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemoryDedup(t, middleware.MemoryDedupConfig{Size: 2, Retention: time.Second})
		token := claim(t, s, "live", middleware.Claimed)
		for id := range 10 {
			handle(t, s, id)
		}
		time.Sleep(time.Hour)
		claim(t, s, "live", middleware.ClaimBusy)
		equal(t, "complete", s.Complete(t.Context(), key("live"), token), nil)
		claim(t, s, "live", middleware.AlreadyDone)
	})
}

// A model that is obviously right says what must come out.
func TestMemoryDedupAgreesWithAModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // a test
				size := 1 + random.IntN(1200)
				const retention = time.Minute
				s := newMemoryDedup(t, middleware.MemoryDedupConfig{Size: size, Retention: retention})
				type done struct {
					id int
					at time.Time
				}
				var model []done
				for range 3000 {
					time.Sleep(time.Duration(random.Int64N(int64(2 * retention / time.Duration(size)))))
					id := random.IntN(3 * size)
					want := middleware.Claimed
					for _, d := range model {
						if d.id == id && time.Since(d.at) <= retention {
							want = middleware.AlreadyDone
						}
					}
					token := claim(t, s, id, want)
					if want == middleware.AlreadyDone {
						continue
					}
					equal(t, "complete", s.Complete(t.Context(), key(id), token), nil)
					model = append(model, done{id, time.Now()})
					model = model[max(0, len(model)-size):]
				}
			})
		})
	}
}

func TestMemoryDedupLetsOneOfManyHaveAnEvent(t *testing.T) {
	t.Parallel()
	s := newMemoryDedup(t, middleware.MemoryDedupConfig{Size: 10})
	for id := range 50 {
		var winners atomic.Int32
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if c, _ := s.Claim(t.Context(), key(id)); c.State == middleware.Claimed {
					winners.Add(1)
					equal(t, "complete", s.Complete(t.Context(), key(id), c.Token), nil)
				}
			})
		}
		wg.Wait()
		equal(t, "winners", winners.Load(), 1)
	}
}

func TestMemoryDedupRefusesNegativeSettings(t *testing.T) {
	t.Parallel()
	for _, cfg := range []middleware.MemoryDedupConfig{{Size: -1}, {Retention: -time.Second}} {
		_, err := middleware.NewMemoryDedup(cfg)
		if err == nil || !strings.Contains(err.Error(), "negative") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: error %v", cfg, err)
		}
	}
	newMemoryDedup(t, middleware.MemoryDedupConfig{}).Volatile()
}
