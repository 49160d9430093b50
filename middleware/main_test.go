package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.uber.org/goleak"

	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const subscription = "shop.send-welcome-email"

var errBoom = errors.New("boom")

// newMessage makes a message as a transport delivers it.
func newMessage(ctx context.Context) *message.Message {
	msg := message.NewMessageWithContext(ctx, "event-1", []byte(`{"orderId":1}`))
	msg.Metadata["ce_source"] = "shop"
	msg.Metadata["ce_type"] = "order.created"
	return msg
}

// stack puts middleware around a handler, the first one outermost.
func stack(h message.HandlerFunc, mws ...message.HandlerMiddleware) message.HandlerFunc {
	for _, m := range slices.Backward(mws) {
		h = m(h)
	}
	return h
}

// script is a handler whose nth call returns the nth error, and nil beyond.
type script struct {
	errs  []error
	calls int
}

func (s *script) handle(*message.Message) ([]*message.Message, error) {
	s.calls++
	if s.calls > len(s.errs) {
		return nil, nil
	}
	return nil, s.errs[s.calls-1]
}

func failing(times int) *script { return &script{errs: slices.Repeat([]error{errBoom}, times)} }

// store is a poison queue and a requeuer whose writes fail a number of times.
type store struct {
	err      error // of a failing write
	failures int   // how many are to come
	hang     bool  // the failing writes last until their context ends

	mu     sync.Mutex // guards what follows
	writes []write
}

// write is an attempt to write.
type write struct {
	at           time.Duration // since the first one
	time         time.Time
	subscription string
	msg          *message.Message // as it was then; without it when the write failed
	delay        time.Duration
	ctxErr       error
}

var (
	_ middleware.PoisonWriter = (*store)(nil)
	_ transports.Requeuer     = (*store)(nil)
)

func (s *store) Poison(ctx context.Context, subscription string, msg *message.Message) error {
	return s.write(ctx, write{subscription: subscription}, msg)
}

func (s *store) Requeue(ctx context.Context, subscription string, msg *message.Message, delay time.Duration) error {
	return s.write(ctx, write{subscription: subscription, delay: delay}, msg)
}

func (s *store) write(ctx context.Context, w write, msg *message.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.time, w.ctxErr = time.Now(), ctx.Err()
	if len(s.writes) > 0 {
		w.at = w.time.Sub(s.writes[0].time)
	}
	fails := len(s.writes) < s.failures
	if !fails {
		w.msg = msg.Copy()
	}
	s.writes = append(s.writes, w)
	if !fails {
		return nil
	}
	if s.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.err
}

// stored returns the messages that were written.
func (s *store) stored() []*message.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*message.Message
	for _, w := range s.writes {
		if w.msg != nil {
			out = append(out, w.msg)
		}
	}
	return out
}

// times returns when there was an attempt to write.
func (s *store) times() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []time.Duration
	for _, w := range s.writes {
		out = append(out, w.at)
	}
	return out
}

// deliver calls h in a goroutine of its own, and returns what will hold its error.
func deliver(h message.HandlerFunc, msg *message.Message) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := h(msg)
		done <- err
	}()
	return done
}

func wantHeader(t *testing.T, msg *message.Message, key, want string) {
	t.Helper()
	if got := msg.Metadata[key]; got != want {
		t.Errorf("%s is %q, want %q", key, got, want)
	}
}

func wantErrorIs(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("error is %v, want one that is %v", err, target)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func equalSlices[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, fmt.Sprint(got), fmt.Sprint(want))
	}
}
