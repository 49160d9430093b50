package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
)

func TestUnroutableEventIsCounted(t *testing.T) {
	t.Parallel()
	counts := make(chan string, 10)
	b := newBench(t, func(c *Config) { c.OnUnroutable = func(topic string) { counts <- topic } })
	b.publish("1")
	if topic := <-counts; topic != "a" {
		t.Errorf("counted for %q", topic)
	}
	ch := b.subscribe(b.Transport, b.sub("s", 1))
	b.publish("2")
	b.ack(ch, "2")
	if len(counts) != 0 {
		t.Errorf("an event with a subscription is counted, for %q", <-counts)
	}
}

func TestUnroutableEventIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.Unroutable = Refuse })
	ch := b.subscribe(b.Transport, b.sub("s", 1))
	err := b.PublishBatch(t.Context(), []transports.Outgoing{
		{Topic: "a", Message: newMessage(t, "0")}, {Topic: "nobody", Message: newMessage(t, "1")}, {Topic: "a", Message: newMessage(t, "2")},
	})
	failed, ok := errors.AsType[*transports.PublishError](err)
	if !ok || len(failed.Failures) != 1 || failed.Failures[0].Index != 1 || !errors.Is(err, ErrUnroutable) {
		t.Errorf("publish: %v; want ErrUnroutable of the second", err)
	}
	b.ack(ch, "0")
	b.ack(ch, "2")
}

func TestUnroutableEventIsKept(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.Unroutable = Keep })
	topic := b.id + ".nobody"
	if err := b.Publish(topic, newMessage(t, "kept")); err != nil {
		t.Fatal(err)
	}
	// Other tests use the queue as well, so it is searched, and left as it is.
	ch := dialRaw(t)
	for {
		d, ok, err := ch.Get(b.names.unrouted, false)
		if err != nil || !ok {
			t.Fatalf("the event is not there: %v", err)
		}
		if d.RoutingKey == topic {
			if d.MessageId != "kept" || d.Exchange != b.names.unrouted {
				t.Errorf("kept as %+v", d)
			}
			if err := d.Ack(false); err != nil {
				t.Error(err)
			}
			return
		}
	}
}

// What the broker refuses with the end of the channel fails alone: what was on its way
// beside it is sent again.
func TestMessageThatEndsTheChannelFailsAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.PublishChannels = 1 })
	ch := b.subscribe(b.Transport, b.sub("s", 100))
	messages := make([]outgoing, 20)
	for i := range messages {
		messages[i] = outgoing{exchange: b.id, key: "a", msg: encode(newMessage(t, fmt.Sprint(i)))}
	}
	messages[7].msg.UserId = "somebody-else" // the broker checks it, with precondition-failed
	messages[12].exchange = b.id + ".missing"
	for i, err := range b.out.publish(t.Context(), messages) {
		switch {
		case i == 7:
			if !isCode(err, amqp.PreconditionFailed) {
				t.Errorf("7: %v; want the broker's refusal", err)
			}
		case i == 12:
			if !isCode(err, amqp.NotFound) {
				t.Errorf("12: %v; want the broker's refusal", err)
			}
		case err != nil:
			t.Errorf("%d: %v", i, err)
		}
	}
	seen := make(map[string]bool)
	for len(seen) < 18 {
		msg := b.receive(ch) // some of them twice
		seen[msg.UUID] = true
		msg.Ack()
	}
	if seen["7"] || seen["12"] {
		t.Errorf("received %v", seen)
	}
	b.publish("after")
}

func TestMetadataOverAFrame(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 1)
	ch := b.subscribe(b.Transport, s)
	large := newMessage(t, "large")
	large.Metadata["note"] = strings.Repeat("x", 300_000)
	if err := b.Publish("a", large); !errors.Is(err, transports.ErrTooLarge) {
		t.Errorf("publish with 300 kB of metadata: %v; want ErrTooLarge", err)
	}
	b.publish("1") // on the same connection
	b.ack(ch, "1")

	// What was received and has grown must not be lost.
	large.Metadata["tidings_poison_stack"] = strings.Repeat("s", 8<<10)
	if err := b.Requeue(t.Context(), s.Name, large, 0); err != nil {
		t.Fatal(err)
	}
	got := b.ack(ch, "large")
	if len(got.Metadata["note"]) != keptWhenShort || got.Metadata["tidings_truncated"] != "tidings_poison_stack note" || string(got.Payload) != "large" {
		t.Errorf("received with %d bytes of the note, truncated: %q", len(got.Metadata["note"]), got.Metadata["tidings_truncated"])
	}
	if err := b.Poison(t.Context(), s.Name, large); err != nil {
		t.Error(err)
	}
}

// Metadata up to the limit goes through: the client does not split it, and the broker
// ends the connection of who sends too much.
func TestMetadataUpToAFrame(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	ch := b.subscribe(b.Transport, b.sub("s", 1))
	msg := newMessage(t, strings.Repeat("i", 255))
	msg.Metadata["ce_type"], msg.Metadata["ce_source"], msg.Metadata["ce_correlationid"] = strings.Repeat("t", 255), strings.Repeat("s", 255), strings.Repeat("c", 255)
	msg.Metadata["content-type"], msg.Metadata["ce_time"] = strings.Repeat("m", 255), "2026-01-02T03:04:05Z"
	room := defaultFrameSize - headerSize(encode(msg).Headers) - len("note") - 6
	msg.Metadata["note"] = strings.Repeat("x", room)
	if err := b.Publish("a", msg); err != nil {
		t.Fatal(err)
	}
	got := b.receive(ch)
	got.Ack()
	if len(got.Metadata["note"]) != room {
		t.Errorf("%d bytes arrived of %d", len(got.Metadata["note"]), room)
	}
	msg.Metadata["note"] += "x"
	if err := b.Publish("a", msg); !errors.Is(err, transports.ErrTooLarge) {
		t.Errorf("one byte more: %v; want ErrTooLarge", err)
	}
}

// Connections that are lost again and again lose no event that was acknowledged.
func TestNothingIsLostWithTheConnection(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	ch := b.subscribe(b.open(), b.sub("s", 100))
	var n testserver.Network
	cfg := b.cfg
	cfg.Dial = n.Dial
	publisher := mustOpen(t, cfg)
	t.Cleanup(func() { _ = publisher.Close() })

	const callers, each = 8, 150
	var publishing sync.WaitGroup
	for caller := range callers {
		publishing.Go(func() {
			for i := range each {
				if err := publisher.Publish("a", newMessage(t, fmt.Sprint(caller, "-", i))); err != nil {
					t.Errorf("publish: %v", err)
				}
			}
		})
	}
	published := make(chan struct{})
	go func() {
		publishing.Wait()
		close(published)
	}()
	cuts := 0
	seen := make(map[string]bool)
	for len(seen) < callers*each {
		msg := b.receive(ch)
		if !seen[msg.UUID] && len(seen)%200 == 100 {
			n.Cut()
			cuts++
			n.Restore()
		}
		seen[msg.UUID] = true
		msg.Ack()
	}
	<-published
	if cuts < 5 {
		t.Errorf("the connection was cut %d times", cuts)
	}
}

func TestCloseEndsPublishes(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	var n testserver.Network
	cfg := b.cfg
	cfg.Dial = n.Dial
	tr := mustOpen(t, cfg)
	n.Cut()
	results := make(chan error)
	const callers = 200 // more than a lane's queue holds
	for i := range callers {
		go func() { results <- tr.Publish("a", newMessage(t, fmt.Sprint(i))) }()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := tr.PublishBatch(ctx, []transports.Outgoing{{Topic: "a", Message: newMessage(t, "x")}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("publish without a connection: %v; want that its deadline has passed", err)
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	for range callers {
		if err := <-results; !errors.Is(err, transports.ErrClosed) {
			t.Errorf("publish: %v; want ErrClosed", err)
		}
	}
}

func TestPublishLeavesThePayloadToItsOwner(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	var n testserver.Network
	cfg := b.cfg
	cfg.Dial = n.Dial
	tr := mustOpen(t, cfg)
	t.Cleanup(func() { _ = tr.Close() })
	n.Cut()
	ctx, cancel := context.WithCancel(t.Context())
	msg := message.NewMessageWithContext(ctx, "1", []byte("payload"))
	result := make(chan error)
	go func() { result <- tr.Publish("a", msg) }()
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("publish: %v", err)
	}
	n.Restore()
	for i := range msg.Payload { // the race detector looks on
		msg.Payload[i] = 'x'
	}
	msg.Metadata["mine"] = "x"
	if err := tr.Publish("a", newMessage(t, "2")); err != nil {
		t.Error(err)
	}
}
