package rabbitmq

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/google/uuid"

	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
)

// An ephemeral subscription says when it is lost with the connection, and when it is there
// anew: what is published from then on arrives. A durable one misses nothing and says nothing.
func TestEphemeralSubscriptionTellsOfInterruption(t *testing.T) {
	t.Parallel()
	var n testserver.Network
	b := newBench(t, nil)
	cfg := b.cfg
	cfg.Dial = n.Dial
	tr := mustOpen(t, cfg)
	defer func() { _ = tr.Close() }()

	told := make(chan bool, 10)
	s := transports.Subscription{Name: b.id + "." + uuid.NewString(), Topics: []string{"a"}, Concurrency: 1, Ephemeral: true, OnInterruption: func(i transports.Interruption) { told <- i.Missing }}
	ch := b.subscribe(tr, s)
	durable := b.sub("durable", 1)
	durable.OnInterruption = func(i transports.Interruption) {
		if i.Missing {
			t.Errorf("a durable subscription says that it misses something: %v", i.Cause)
		}
	}
	kept := b.subscribe(tr, durable)
	b.publish("before")
	b.ack(ch, "before")
	b.ack(kept, "before")

	n.Cut()
	wait := func(want bool) {
		t.Helper()
		select {
		case lost := <-told:
			if lost != want {
				t.Fatalf("told %t; want %t", lost, want)
			}
		case <-time.After(testPatience):
			t.Fatalf("nothing was told; want %t", want)
		}
	}
	wait(true)
	b.publish("meanwhile")
	n.Restore()
	wait(false)
	b.publish("after")
	b.ack(ch, "after")
	// Another time can come: "before", whose acknowledgement was lost on the cut line, and
	// "meanwhile", which the broker refuses, and stores all the same, while the ephemeral
	// queue goes away.
	earlier := "before"
	for _, id := range []string{"meanwhile", "after"} {
		msg := b.receive(kept)
		for ; msg.UUID == earlier; msg = b.receive(kept) {
			msg.Ack()
		}
		if msg.UUID != id {
			t.Errorf("received %q; want %q", msg.UUID, id)
		}
		msg.Ack()
		earlier = id
	}

	ctx, stop := contextWithStop(t)
	s.Name += "2"
	ending, err := tr.Subscribe(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	for range ending { // it ends, which is no interruption
		continue
	}
	select {
	case lost := <-told:
		t.Errorf("the end of a subscription tells: %t", lost)
	default:
	}
}

// interruptions collects what a subscription says of its consumer.
func interruptions(s *transports.Subscription) <-chan error {
	causes := make(chan error, 1000)
	s.OnInterruption = func(i transports.Interruption) { causes <- i.Cause }
	return causes
}

// awaitCause waits until the subscription says what done looks for.
func (b *bench) awaitCause(causes <-chan error, what string, done func(error) bool) {
	b.Helper()
	var seen error
	for deadline := time.After(testPatience); ; {
		select {
		case seen = <-causes:
			if done(seen) {
				return
			}
		case <-deadline:
			b.Fatalf("%s is not told; the last cause: %v", what, seen)
		}
	}
}

// A subscription whose queue somebody has replaced by one that it can't use says so, for as
// long as that is so.
func TestReplacedQueueIsAnInterruption(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	var log lockedBuffer
	cfg := b.cfg
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	tr := mustOpen(t, cfg)
	t.Cleanup(func() { _ = tr.Close() })
	s := b.sub("s", 1)
	causes := interruptions(&s)
	ch := b.subscribe(tr, s)
	if _, err := b.raw.QueueDelete(b.names.queue(s.Name), false, false, false); err != nil {
		t.Fatal(err)
	}
	if _, err := b.raw.QueueDeclare(b.names.queue(s.Name), true, false, false, false, amqp.Table{"x-queue-type": "classic"}); err != nil {
		t.Fatal(err)
	}
	b.awaitCause(causes, "the cancelled consumer", func(err error) bool { return errors.Is(err, errCancelled) })
	b.awaitCause(causes, "the other queue", func(err error) bool {
		_, ok := errors.AsType[*TopologyError](err)
		return ok && strings.Contains(err.Error(), "exists with other properties")
	})
	if n := strings.Count(log.String(), "the broker has cancelled the consumer"); n != 1 {
		t.Errorf("the cancel is logged %d times; want once:\n%s", n, log.String())
	}
	if _, err := b.raw.QueueDelete(b.names.queue(s.Name), false, false, false); err != nil {
		t.Fatal(err)
	}
	b.awaitCause(causes, "the end of the interruption", func(err error) bool { return err == nil })
	b.publish("1")
	b.ack(ch, "1")
}

// Why the broker has closed a consumer's channel is logged, once.
func TestReasonOfClosedChannelIsLogged(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	var log lockedBuffer
	cfg := b.cfg
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	tr := mustOpen(t, cfg)
	t.Cleanup(func() { _ = tr.Close() })
	s := b.sub("s", 2)
	causes := interruptions(&s)
	c, err := tr.subscribe(t.Context(), s, true)
	if err != nil {
		t.Fatal(err)
	}
	b.publish("1")
	msg := b.receive(c.out)
	c.flightMu.Lock()
	f := c.flights[msg]
	c.flightMu.Unlock()
	if err := f.r.ch.Ack(f.d.DeliveryTag+1000, false); err != nil { // the broker knows no such delivery
		t.Fatal(err)
	}
	b.awaitCause(causes, "the reason", func(err error) bool { return isCode(err, amqp.PreconditionFailed) })
	b.awaitCause(causes, "the end of the interruption", func(err error) bool { return err == nil })
	msg.Ack()
	c.settle(msg)
	if n := strings.Count(log.String(), "unknown delivery tag"); n != 1 || !strings.Contains(log.String(), "subscription="+s.Name) {
		t.Errorf("the reason is logged %d times; want once, with the subscription:\n%s", n, log.String())
	}
	msg = b.receive(c.out) // again: the acknowledgement had nowhere to go
	msg.Ack()
	c.settle(msg)
}

// A permission that was revoked is named, and is no reason to be ready.
func TestRevokedPermissionIsNamed(t *testing.T) {
	t.Parallel()
	broker := testserver.StartRabbitMQ(t)
	broker.Ctl("add_user", "app", "secret")
	broker.Ctl("set_permissions", "app", ".*", ".*", ".*")
	owner := mustOpen(t, Config{URLs: []string{broker.URL()}})
	t.Cleanup(func() { _ = owner.Close() })
	for _, c := range []struct {
		mode                   TopologyMode
		configure, write, read string
		wants                  []string
	}{
		{Verify, ".*", ".*", "^events$", []string{"may not be consumed", "grant this user the read permission"}},
		{Declare, "^(events|tidings.*)$", ".*", ".*", []string{"may not be declared", "grant the configure permission"}},
		{Declare, ".*", "^(events|tidings.*|amq.default|)$", ".*", []string{"may not be bound", "grant the write permission"}},
	} {
		b := &bench{T: t, Transport: owner}
		broker.Ctl("set_permissions", "app", ".*", ".*", ".*")
		tr := mustOpen(t, Config{URLs: []string{strings.Replace(broker.URL(), "guest:guest", "app:secret", 1)}, Topology: c.mode})
		s := transports.Subscription{Name: uuid.NewString(), Topics: []string{"a"}, Concurrency: 1}
		b.subscribe(owner, s)
		causes := interruptions(&s)
		ch := b.subscribe(tr, s)
		broker.Ctl("set_permissions", "app", c.configure, c.write, c.read)
		broker.Ctl("close_all_user_connections", "app", "maintenance")
		b.awaitCause(causes, "the refusal", func(err error) bool {
			_, ok := errors.AsType[*TopologyError](err)
			for _, want := range c.wants {
				ok = ok && strings.Contains(err.Error(), want)
			}
			return ok
		})
		broker.Ctl("set_permissions", "app", ".*", ".*", ".*")
		b.awaitCause(causes, "the end of the interruption", func(err error) bool { return err == nil })
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
		for range ch { // a message may have been delivered
			continue
		}
	}
}

// Why the broker has closed a publish channel is logged once, and not for each attempt.
func TestReasonOfClosedPublishChannelIsLogged(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	b := newBench(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	results := b.out.publish(t.Context(), []outgoing{{exchange: b.id + ".missing", key: "a"}})
	if !isCode(results[0], amqp.NotFound) {
		t.Fatalf("publish to an exchange that does not exist: %v", results[0])
	}
	if n := strings.Count(log.String(), "closed a publish channel"); n != 1 {
		t.Errorf("the reason is logged %d times; want once:\n%s", n, log.String())
	}
}
