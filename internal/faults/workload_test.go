package faults_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

// step is an event of the workload. Steps of one key are published one after the other.
type step struct {
	Key  string `json:"key"`
	N    int    `json:"n"` // counts the steps of the key, from 1
	Fate fate   `json:"fate"`
}

func (step) EventType() string      { return "faults.step" }
func (s step) PartitionKey() string { return s.Key }

// later is an event that is published with a delay.
type later struct {
	N int `json:"n"`
}

func (later) EventType() string { return "faults.later" }

// fate says what the subscription "work" makes of a step.
type fate string

const (
	fine    fate = ""
	retried fate = "retried" // fails once and comes back after retryDelay
	dead    fate = "dead"    // fails for good
)

const (
	retryDelay = time.Second
	laterDelay = 2 * time.Second

	// maxUnhandled holds the publishers back. Without it the time that an event waits would
	// be that of a backlog, and say nothing about the fault.
	maxUnhandled = 300
)

// The workload's subscriptions.
const (
	orderedName = "ordered" // steps, in order of their keys
	workName    = "work"    // steps, each according to its fate
	laterName   = "later"   // delayed events
)

// delivery is what one subscription owes one event.
type delivery struct{ subscription, id string }

// workload publishes ordered, retried, poisoned and delayed events to a service of
// several replicas, and records what becomes of each.
type workload struct {
	service string // its name; the subscriptions' names at the broker begin with it

	mu      sync.Mutex             // guards what follows
	due     map[delivery]time.Time // of acknowledged events: the earliest time of handling
	handled map[delivery]time.Time // the first time
	order   map[string][]step      // by key, in the order of the first handling by "ordered"
	failed  map[string]bool        // ids of steps that have failed once
	acked   map[step]bool
	fates   map[string]fate // of steps, by id
	dead    map[string]bool // ids of steps that fail for good; true: acknowledged
	owed    int             // acknowledged and not handled yet
	outages [][2]time.Time
	steps   map[string]int // by key, published
	laters  int
	changed chan struct{} // closed, and replaced, with each change
}

func newWorkload(service string) *workload {
	return &workload{
		service: service,
		due:     make(map[delivery]time.Time), handled: make(map[delivery]time.Time), order: make(map[string][]step),
		failed: make(map[string]bool), acked: make(map[step]bool), fates: make(map[string]fate), dead: make(map[string]bool),
		steps: make(map[string]int), changed: make(chan struct{}),
	}
}

// locked calls f with mu held, and notifies those that wait.
func (w *workload) locked(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	close(w.changed)
	w.changed = make(chan struct{})
}

// await returns when reached, which is called with mu held, returns true.
func (w *workload) await(ctx context.Context, reached func() bool) error {
	for {
		w.mu.Lock()
		done, changed := reached(), w.changed
		w.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// owes records that a subscription owes an event from due on. Called with mu held.
func (w *workload) owes(subscription, id string, due time.Time) {
	d := delivery{subscription, id}
	w.due[d] = due
	if _, ok := w.handled[d]; !ok {
		w.owed++
	}
}

// replica starts one process of the service on a transport.
func (w *workload) replica(ctx context.Context, t *testing.T, tr transports.Transport) *bus.Bus {
	t.Helper()
	b, err := bus.New(tr, bus.Config{Source: w.service, Concurrency: 16})
	if err != nil {
		t.Fatal(err)
	}
	bus.Subscribe(b, orderedName, func(ctx context.Context, s step) error {
		w.handles(ctx, orderedName, func() { w.order[s.Key] = append(w.order[s.Key], s) })
		return nil
	}, bus.Ordered())
	bus.Subscribe(b, workName, func(ctx context.Context, s step) error { return w.work(ctx, s) },
		bus.Retry(bus.RetryPolicy{Attempts: 1, Redeliveries: slices.Repeat([]time.Duration{retryDelay}, 20)}))
	bus.Subscribe(b, laterName, func(ctx context.Context, _ later) error {
		w.handles(ctx, laterName, func() {})
		return nil
	})
	if err := b.Start(ctx); err != nil {
		t.Fatalf("start: %v", err)
	}
	return b
}

func (w *workload) work(ctx context.Context, s step) error {
	md, _ := events.MetadataFrom(ctx)
	first := false
	if s.Fate == retried {
		w.locked(func() { first = !w.failed[md.ID]; w.failed[md.ID] = true })
	}
	switch {
	case first:
		return bus.RetryAfter(retryDelay, errors.New("fails once"))
	case s.Fate == dead:
		w.handles(ctx, workName, func() {})
		return bus.Permanent(errors.New("fails for good"))
	}
	w.handles(ctx, workName, func() {})
	return nil
}

// handles records a handling, and calls first with mu held if it is the first one.
func (w *workload) handles(ctx context.Context, subscription string, first func()) {
	md, _ := events.MetadataFrom(ctx)
	d := delivery{subscription, md.ID}
	now := time.Now()
	w.locked(func() {
		if _, again := w.handled[d]; again {
			return
		}
		w.handled[d] = now
		if _, ok := w.due[d]; ok {
			w.owed--
		}
		first()
	})
}

// publish publishes from one goroutine, the only one that has these keys, until enough
// events are acknowledged or ctx ends.
func (w *workload) publish(ctx context.Context, b *bus.Bus, keys []string, random *rand.Rand, enough <-chan struct{}) {
	for n := 0; ; n++ {
		if w.await(ctx, func() bool { return w.owed < maxUnhandled }) != nil {
			return
		}
		select {
		case <-enough:
			return
		default:
		}
		if random.IntN(10) == 0 {
			w.publishLater(ctx, b)
			continue
		}
		w.publishStep(ctx, b, keys[n%len(keys)], random)
	}
}

func (w *workload) publishStep(ctx context.Context, b *bus.Bus, key string, random *rand.Rand) {
	s := step{Key: key}
	w.locked(func() { w.steps[key]++; s.N = w.steps[key] })
	switch random.IntN(100) {
	case 0:
		s.Fate = dead
	case 1, 2, 3, 4, 5:
		s.Fate = retried
	}
	id := fmt.Sprintf("%s-%d", s.Key, s.N)
	if s.Fate == dead {
		w.locked(func() { w.dead[id] = false })
	}
	if b.Publish(ctx, s, bus.WithID(id)) != nil {
		return // it may have been sent or not: nothing is owed
	}
	now := time.Now()
	w.locked(func() {
		w.acked[s], w.fates[id] = true, s.Fate
		w.owes(orderedName, id, now)
		switch s.Fate {
		case retried:
			w.owes(workName, id, now.Add(retryDelay))
		case dead:
			w.dead[id] = true
			fallthrough
		default:
			w.owes(workName, id, now)
		}
	})
}

func (w *workload) publishLater(ctx context.Context, b *bus.Bus) {
	e := later{}
	w.locked(func() { w.laters++; e.N = w.laters })
	id := fmt.Sprintf("later-%d", e.N)
	if b.Publish(ctx, e, bus.WithID(id), bus.WithDelay(laterDelay)) != nil {
		return
	}
	w.locked(func() { w.owes(laterName, id, time.Now().Add(laterDelay)) })
}

// outage calls harm, and records how long it took as a time in which nothing is owed.
func (w *workload) outage(harm func()) {
	begin := time.Now()
	harm()
	w.locked(func() { w.outages = append(w.outages, [2]time.Time{begin, time.Now()}) })
}

// lateness returns how much later than due each event was handled, outages not counted.
func (w *workload) lateness() map[delivery]time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	late := make(map[delivery]time.Duration, len(w.due))
	for d, due := range w.due {
		at, ok := w.handled[d]
		if !ok {
			continue
		}
		late[d] = at.Sub(due)
		for _, o := range w.outages {
			if begin, end := latest(o[0], due), earliest(o[1], at); begin.Before(end) {
				late[d] -= end.Sub(begin)
			}
		}
	}
	return late
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// wantOrder wants the acknowledged steps of each key to have been handled first in the
// order of their publishing.
func (w *workload) wantOrder(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	wrong := 0
	for _, key := range slices.Sorted(maps.Keys(w.order)) {
		last := 0
		for _, s := range w.order[key] {
			if !w.acked[s] {
				continue
			}
			if s.N < last {
				if wrong++; wrong <= 10 {
					t.Errorf("step %d of key %s was handled after step %d", s.N, key, last)
				}
			}
			last = max(last, s.N)
		}
	}
	if wrong > 0 {
		t.Errorf("%d steps were handled out of order", wrong)
	}
}

// missing describes the deliveries that are owed.
func (w *workload) missing() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	count := make(map[string]int)
	var some []string
	for d, due := range w.due {
		if _, ok := w.handled[d]; ok {
			continue
		}
		if count[d.subscription]++; count[d.subscription] <= 3 {
			some = append(some, fmt.Sprintf("%s of %s, due %s ago", d.id, d.subscription, time.Since(due).Round(time.Second)))
		}
	}
	return fmt.Sprintf("owed %v, such as %v", count, some)
}
