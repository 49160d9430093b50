package watermill

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

func TestPublisherGetsItsOwnCopies(t *testing.T) {
	t.Parallel()
	f := &fakePublisher{publish: func(_ string, messages ...*message.Message) error {
		messages[0].Metadata["by publisher"] = "x"
		messages[0].Payload[0] = 'x'
		return nil
	}}
	tr := newTransport(t, f, nil, Config{})
	msg := message.NewMessageWithContext(t.Context(), "1", []byte("payload"))
	if err := tr.Publish("a", msg); err != nil {
		t.Fatal(err)
	}
	if len(msg.Metadata) != 0 || string(msg.Payload) != "payload" {
		t.Errorf("the caller's message has become %+v", msg)
	}
	if f.published[0].Context() != t.Context() {
		t.Error("the message has lost its context")
	}
}

func TestOneCallForAllMessages(t *testing.T) {
	t.Parallel()
	f := &fakePublisher{publish: func(string, ...*message.Message) error { return errSample }}
	tr := newTransport(t, f, nil, Config{MaxMessageBytes: 3})
	err := tr.Publish("a", message.NewMessage("0", []byte("abc")), message.NewMessage("1", []byte("abcd")), message.NewMessage("2", nil))
	if f.batches != 1 || len(f.published) != 2 {
		t.Errorf("%d calls, %d messages; want 1 with 2", f.batches, len(f.published))
	}
	partial, ok := errors.AsType[*transports.PublishError](err)
	if !ok || len(partial.Failures) != 3 {
		t.Fatalf("got %v; want three failures", err)
	}
	for i, want := range []error{errSample, transports.ErrTooLarge, errSample} {
		if got := partial.Failures[i]; got.Index != i || !errors.Is(got.Err, want) {
			t.Errorf("failure %d: %+v; want %v", i, got, want)
		}
	}
	if err := tr.Publish("a", message.NewMessage("0", []byte("abcd"))); !errors.Is(err, transports.ErrTooLarge) || f.batches != 1 {
		t.Errorf("nothing but a message that is too large: %v, after %d calls", err, f.batches)
	}
	if err := tr.Publish("a", message.NewMessage("0", nil)); err != errSample { //nolint:errorlint // itself, not wrapped
		t.Errorf("a message on its own: %v; want the publisher's error", err)
	}
}

// hanging publishes until it is released.
func hanging() (f *fakePublisher, release func()) {
	released := make(chan struct{})
	return &fakePublisher{publish: func(string, ...*message.Message) error {
		<-released
		return nil
	}}, func() { close(released) }
}

func TestPublishEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, release := hanging()
		tr := newTransport(t, f, nil, Config{})
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errSample)
		defer cancel()
		start := time.Now()
		err := tr.Publish("a", message.NewMessageWithContext(ctx, "1", nil))
		if !errors.Is(err, errSample) || time.Since(start) != time.Second {
			t.Errorf("got %v after %s; want why the context ended, after 1s", err, time.Since(start))
		}
		release()
	})
}

func TestPublishEndsWithClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, release := hanging()
		f.onClose = func() error {
			release() // as one does that waits for a broker
			return nil
		}
		tr := newTransport(t, f, nil, Config{})
		done := make(chan error, 1)
		go func() { done <- tr.Publish("a", message.NewMessage("1", nil)) }()
		synctest.Wait()
		start := time.Now()
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, transports.ErrClosed) {
			t.Errorf("Publish: %v; want ErrClosed", err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("Close took %s; want the second that it gives to who publishes", took)
		}
	})
}

// Close waits for what is being published before it closes the publisher.
func TestCloseWaitsForPublish(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, release := hanging()
		tr := newTransport(t, f, nil, Config{})
		go func() { _ = tr.Publish("a", message.NewMessage("1", nil)) }()
		synctest.Wait()
		go func() { _ = tr.Close() }()
		synctest.Wait()
		if f.closed != 0 {
			t.Error("the publisher is closed while it publishes")
		}
		release()
		synctest.Wait()
		if f.closed != 1 {
			t.Errorf("the publisher was closed %d times", f.closed)
		}
	})
}

func TestPublisherThatHangsCollectsNoGoroutinesWithoutEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, release := hanging()
		tr := newTransport(t, f, nil, Config{})
		for range maxPublishing + 10 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			if err := tr.Publish("a", message.NewMessageWithContext(ctx, "1", nil)); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			cancel()
		}
		synctest.Wait()
		if f.batches != maxPublishing {
			t.Errorf("%d calls hang; want %d", f.batches, maxPublishing)
		}
		release()
		synctest.Wait()
		if err := tr.Publish("a", message.NewMessage("1", nil)); err != nil {
			t.Errorf("when they have ended: %v", err)
		}
	})
}

func TestPublishThatWaitsForItsTurnEndsWithClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, &fakePublisher{}, nil, Config{})
		for range maxPublishing {
			tr.publishing <- struct{}{}
		}
		done := make(chan error, 1)
		go func() { done <- tr.Publish("a", message.NewMessage("1", nil)) }()
		synctest.Wait()
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, transports.ErrClosed) {
			t.Errorf("got %v; want ErrClosed", err)
		}
	})
}

func TestPanicOfThePublisherIsAnError(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, &fakePublisher{publish: func(string, ...*message.Message) error { panic("out of ink") }}, nil, Config{})
	err := tr.Publish("a", message.NewMessage("1", nil))
	if err == nil || !strings.Contains(err.Error(), "panic: out of ink") {
		t.Errorf("got %v", err)
	}
}

func TestHalfATransport(t *testing.T) {
	t.Parallel()
	publisher := newTransport(t, &fakePublisher{}, nil, Config{})
	if _, err := publisher.Subscribe(t.Context(), sub("s", "a")); !errors.Is(err, transports.ErrUnsupported) {
		t.Errorf("Subscribe without a subscriber: %v", err)
	}
	subscriber := newTransport(t, nil, &fakeSubscriber{}, Config{})
	if err := subscriber.Publish("a", message.NewMessage("1", nil)); !errors.Is(err, transports.ErrUnsupported) {
		t.Errorf("Publish without a publisher: %v", err)
	}
}
