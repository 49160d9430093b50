package queue_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/examples/documents/internal/queue"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

func completes(context.Context, queue.Delivery[job]) queue.Settlement { return queue.Complete() }

// onMemory makes a world on the memory transport.
func onMemory(t *testing.T) *world {
	t.Helper()
	transport, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := transport.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return &world{t: t, ctx: ctx, transport: transport, name: "queue"}
}

func TestLife(t *testing.T) {
	t.Parallel()
	w := onMemory(t)
	p, stop := w.start(completes)
	if err := p.Start(w.ctx); !errors.Is(err, queue.ErrStarted) {
		t.Errorf("second Start: %v", err)
	}
	stop()
	stop()
	if err := p.Start(w.ctx); !errors.Is(err, queue.ErrStarted) {
		t.Errorf("Start after Stop: %v", err)
	}
	never, err := queue.New(queue.Config[job]{Transport: w.transport, Name: "x", Topics: []string{"x"}, Handle: completes})
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // either may be seen first: that it has ended, or that nobody waits
		if err := never.Stop(gone); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	if err := never.Wait(); err != nil {
		t.Error(err)
	}
	if err := never.Start(w.ctx); !errors.Is(err, queue.ErrStarted) {
		t.Errorf("Start after Stop: %v", err)
	}
}

func TestLost(t *testing.T) {
	t.Parallel()
	w := onMemory(t)
	p, _ := w.start(completes)
	remover, _ := w.transport.(transports.SubscriptionRemover)
	if err := remover.RemoveSubscription(w.ctx, w.name); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); !errors.Is(err, queue.ErrLost) {
		t.Errorf("error is %v, want ErrLost", err)
	}
	if err := p.Stop(w.ctx); err != nil {
		t.Error(err)
	}
}

// bare is a transport without any capability.
type bare struct{ transports.Transport }

func TestConfig(t *testing.T) {
	t.Parallel()
	w := onMemory(t)
	_, err := queue.New(queue.Config[job]{Transport: bare{w.transport}, Concurrency: -1, MaxDeliveries: -1, RetryDelay: -1})
	for _, want := range []string{"Transport is a queue_test.bare", "name is empty", "no topics", "concurrency -1", "Handle is nil", "MaxDeliveries is -1", "RetryDelay is -1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want it to say %q", err, want)
		}
	}
}

// Middleware sees the delivery, the handler has the event's metadata, and the log has no
// bodies.
func TestMiddlewareAndLog(t *testing.T) {
	t.Parallel()
	w := onMemory(t)
	var log bytes.Buffer
	seen := make(chan string, 10)
	keeps, given := keep()
	_, stop := w.start(func(ctx context.Context, d queue.Delivery[job]) queue.Settlement {
		md, _ := events.MetadataFrom(ctx)
		seen <- "handled " + md.ID + " " + md.Subscription + " " + d.Metadata["ce_source"]
		return queue.DeadLetter("no", "never")
	}, keeps, func(c *queue.Config[job]) {
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		c.Middleware = []message.HandlerMiddleware{func(h message.HandlerFunc) message.HandlerFunc {
			return func(msg *message.Message) ([]*message.Message, error) {
				seen <- "before " + msg.UUID
				return h(msg)
			}
		}}
	})
	w.send(`{"n":4711}`)
	receive(w, given)
	stop()
	if a, b := <-seen, <-seen; a != "before job-0" || b != "handled job-0 queue test" {
		t.Errorf("seen %q, %q", a, b)
	}
	if got := log.String(); !strings.Contains(got, "outcome=poisoned subscription=queue event_type=queue event_id=job-0 attempt=1") || strings.Contains(got, "4711") {
		t.Errorf("log is %q", got)
	}
}
