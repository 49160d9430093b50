package faults_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
)

// ledger reconciles what was published with what was handled, by event id.
type ledger struct {
	mu           sync.Mutex // guards what follows
	acknowledged map[string]bool
	doubtful     map[string]error // Publish returned this: it may have been sent or not
	handled      map[string]int   // times
	owed         int              // acknowledged and not handled yet
	changed      chan struct{}    // closed, and replaced, with each change
}

func newLedger() *ledger {
	return &ledger{
		acknowledged: make(map[string]bool),
		doubtful:     make(map[string]error),
		handled:      make(map[string]int),
		changed:      make(chan struct{}),
	}
}

// published notes what Publish returned for each of ids.
func (l *ledger) published(err error, ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		if err != nil {
			l.doubtful[id] = err
			continue
		}
		l.acknowledged[id] = true
		if l.handled[id] == 0 {
			l.owed++
		}
	}
	l.notify()
}

// handles notes that a handler has done its work on an event.
func (l *ledger) handles(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.handled[id]++
	if l.handled[id] == 1 && l.acknowledged[id] {
		l.owed--
	}
	l.notify()
}

// notify needs mu.
func (l *ledger) notify() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// await returns when reached, which is called with mu held, says so.
func (l *ledger) await(ctx context.Context, reached func() bool) error {
	for {
		l.mu.Lock()
		done, changed := reached(), l.changed
		l.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", l, context.Cause(ctx))
		}
	}
}

// awaitAcknowledged returns when n events were acknowledged.
func (l *ledger) awaitAcknowledged(ctx context.Context, n int) error {
	return l.await(ctx, func() bool { return len(l.acknowledged) >= n })
}

// awaitHandled returns when n events were handled.
func (l *ledger) awaitHandled(ctx context.Context, n int) error {
	return l.await(ctx, func() bool { return len(l.handled) >= n })
}

// settled reports whether all that was acknowledged was handled.
func (l *ledger) settled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.owed == 0
}

// settle returns when all that was acknowledged was handled.
func (l *ledger) settle(ctx context.Context) error {
	return l.await(ctx, func() bool { return l.owed == 0 })
}

// lost returns what was acknowledged and not handled.
func (l *ledger) lost() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []string
	for id := range l.acknowledged {
		if l.handled[id] == 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// repeated returns how many events were handled more than once.
func (l *ledger) repeated() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, times := range l.handled {
		if times > 1 {
			n++
		}
	}
	return n
}

// reconcile waits until everything is settled, and fails the test with what is lost
// when it never is, and with what was not acknowledged.
func (l *ledger) reconcile(ctx context.Context, t *testing.T) {
	t.Helper()
	if err := l.settle(ctx); err != nil {
		lost := l.lost()
		t.Errorf("%v; lost: %q", err, lost[:min(len(lost), 10)])
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, err := range l.doubtful {
		t.Errorf("%d events could not be published, %s among them: %v", len(l.doubtful), id, err)
		break
	}
}

// String sums up.
func (l *ledger) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("acknowledged %d, in doubt %d, handled %d, owed %d", len(l.acknowledged), len(l.doubtful), len(l.handled), l.owed)
}

func TestLedger(t *testing.T) {
	t.Parallel()
	l := newLedger()
	ended, cancel := context.WithCancel(t.Context())
	cancel()

	l.handles("early")
	l.published(nil, "early", "late", "never")
	l.published(context.DeadlineExceeded, "doubtful")
	l.handles("late")
	l.handles("late")
	if err := l.settle(ended); err == nil {
		t.Error("settled with one event owed")
	}
	if got := l.lost(); !slices.Equal(got, []string{"never"}) {
		t.Errorf("lost %q", got)
	}
	if got := l.repeated(); got != 1 {
		t.Errorf("repeated %d, want 1", got)
	}
	if err := l.awaitAcknowledged(ended, 4); err == nil {
		t.Error("four events acknowledged, want three")
	}
	if got, want := l.String(), "acknowledged 3, in doubt 1, handled 2, owed 1"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	go l.handles("never")
	if err := l.settle(t.Context()); err != nil {
		t.Error(err)
	}
	if got := l.lost(); got != nil {
		t.Errorf("lost %q", got)
	}
}
