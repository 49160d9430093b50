package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

// Left-overs of a crashed run, foreign messages of every sort, and the same events of
// another source are about. They change nothing.
func TestForeignMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSpy(t)
		crashed := s.broker.Connect()
		for _, name := range []string{"send-welcome-email", "audit"} {
			if _, err := crashed.Subscribe(t.Context(), transports.Subscription{Name: "quickstart-0123456789ab." + name, Topics: []string{"#"}, Concurrency: 1}); err != nil {
				t.Fatal(err)
			}
		}
		if err := crashed.Close(); err != nil {
			t.Fatal(err)
		}
		s.publish = func(s *spy, ctx context.Context, batch []transports.Outgoing) error {
			for _, out := range batch {
				for i, change := range []func(*message.Message){
					func(m *message.Message) { m.Metadata["ce_source"] = "somebody" }, // the same id
					func(m *message.Message) { m.UUID = "" },
					func(m *message.Message) { m.UUID += "-foreign" },
					func(m *message.Message) { m.UUID += "-bad"; m.Payload = []byte("\xff") },
					func(m *message.Message) { m.Metadata = message.Metadata{} },
				} {
					m := out.Message.Copy()
					change(m)
					if err := s.other.Publish(out.Topic, m); err != nil {
						t.Errorf("foreign message %d: %v", i, err)
					}
				}
			}
			return s.Transport.PublishBatch(ctx, batch)
		}
		in := smallSample()
		r := runOn(t, s, in)
		if want := countSample(t, in.sample).String(); r.err != nil || r.last() != want {
			t.Errorf("error %v, last line %q\nwant nil, %q", r.err, r.last(), want)
		}
		if strings.Contains(r.stdout, "invalid character") {
			t.Errorf("reasons of foreign messages are in the report:\n%s", r.stdout)
		}
		// The crashed run's queues are not ours to delete.
		left := s.broker.Connect()
		defer func() { _ = left.Close() }()
		if _, err := left.Depth(t.Context(), "quickstart-0123456789ab.audit"); err != nil {
			t.Error(err)
		}
	})
}

// A broker may deliver twice what was published once.
func TestRepeatedDeliveries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSpy(t)
		s.publish = func(s *spy, ctx context.Context, batch []transports.Outgoing) error {
			return errors.Join(s.Transport.PublishBatch(ctx, batch), s.Transport.PublishBatch(ctx, batch))
		}
		r := runOn(t, s, linesOf(event(t, "1", "customer.created", customer(1)), event(t, "2", "order.created", nil)))
		if r.err != nil || !strings.HasPrefix(r.last(), "malformed=0 published=2 handled=1 ") || !strings.HasSuffix(r.last(), " unhandled=0 lost=0") {
			t.Errorf("error %v, last line %q", r.err, r.last())
		}
	})
}

// An event that the transport refuses, for a reason of its own, is told, and the rest
// goes on.
func TestRefusedEvent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSpy(t)
		s.publish = func(s *spy, ctx context.Context, batch []transports.Outgoing) error {
			if batch[0].Message.UUID == "2" {
				return errors.New("headers do not fit")
			}
			return s.Transport.PublishBatch(ctx, batch)
		}
		r := runOn(t, s, linesOf(event(t, "1", "customer.created", customer(1)), event(t, "2", "customer.created", customer(2)), event(t, "3", "customer.created", customer(3))))
		const want = "malformed=0 published=2 handled=2 retried=0 deduplicated=0 poisoned=0 unhandled=0 lost=0"
		if r.err != nil || r.last() != want || r.stderr != "line 2: publish customer.created: headers do not fit\n" {
			t.Errorf("error %v, last line %q, stderr %q", r.err, r.last(), r.stderr)
		}
	})
}

// An interrupt ends the reading. What was published is handled and accounted for.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSpy(t)
		ctx, interrupt := context.WithCancel(t.Context())
		defer interrupt()
		in, feed := io.Pipe()
		go func() { // ends when the test closes the pipe
			for i := 0; ; i++ {
				if i == 1000 {
					interrupt()
				}
				if _, err := fmt.Fprintln(feed, event(t, fmt.Sprint(i), "customer.created", customer(i+1))); err != nil {
					return
				}
			}
		}()
		r := runUntil(ctx, t, s, &input{name: "pipe", lines: readLines(in, maxLine)})
		_ = in.Close()
		n := len(s.published)
		if want := (summary{published: n, handled: n}).String(); !errors.Is(r.err, errInterrupted) || r.last() != want || n < 900 {
			t.Errorf("error %v, last line %q\nwant %v, %q", r.err, r.last(), errInterrupted, want)
		}
		if !strings.Contains(r.stderr, "interrupted") {
			t.Errorf("stderr %q", r.stderr)
		}
	})
}

// A read of standard input that blocks does not keep the program from ending.
func TestInterruptWhileReading(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSpy(t)
		ctx, interrupt := context.WithCancel(t.Context())
		in, feed := io.Pipe()
		defer func() { _ = feed.Close() }()
		time.AfterFunc(time.Hour, interrupt)
		r := runUntil(ctx, t, s, &input{name: "pipe", lines: readLines(in, maxLine)})
		if !errors.Is(r.err, errInterrupted) || r.last() != (summary{}).String() {
			t.Errorf("error %v, last line %q", r.err, r.last())
		}
	})
}

// Copies of an event that an outage poisons are both redriven; one is then handled.
func TestRedriveOfCopies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSample()
		var raw bus.Raw
		for _, e := range s.events {
			if f := s.faults[e.Metadata.ID]; f.of == stock && f.problem == warehouseShut.problem {
				raw = e
			}
		}
		s.events = []bus.Raw{raw, raw}
		r := runOn(t, newSpy(t), &input{name: "sample", lines: s.all, sample: s})
		const want = "malformed=0 published=2 handled=1 retried=2 deduplicated=1 poisoned=0 unhandled=0 lost=0"
		if r.err != nil || r.last() != want {
			t.Errorf("error %v, last line %q\nwant nil, %q\n%s", r.err, r.last(), want, r.stdout)
		}
	})
}

// Events of one key are published in the order of their lines, however long each takes.
func TestPublishOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSpy(t)
		arrived := make(map[string][]string) // by key; guarded by s.mu
		s.publish = func(s *spy, ctx context.Context, batch []transports.Outgoing) error {
			md := events.DecodeMetadata(batch[0].Message.UUID, batch[0].Message.Metadata)
			var n int
			_, _ = fmt.Sscan(md.ID, &n)
			time.Sleep(time.Duration(n%7) * time.Millisecond)
			s.mu.Lock()
			arrived[md.PartitionKey] = append(arrived[md.PartitionKey], md.ID)
			s.mu.Unlock()
			return s.Transport.PublishBatch(ctx, batch)
		}
		var lines []string
		want := make(map[string][]string)
		for i := range 500 {
			key := fmt.Sprint(i % 5)
			members := customer(i + 1)
			members["partitionkey"] = key
			lines = append(lines, event(t, fmt.Sprint(i), "customer.created", members))
			want[key] = append(want[key], fmt.Sprint(i))
		}
		began := time.Now()
		r := runOn(t, s, linesOf(lines...))
		if r.err != nil || r.last() != (summary{published: 500, handled: 500}).String() {
			t.Errorf("error %v, last line %q", r.err, r.last())
		}
		if fmt.Sprint(arrived) != fmt.Sprint(want) {
			t.Errorf("arrived in the order %v", arrived)
		}
		if took := time.Since(began); took > 1200*time.Millisecond {
			t.Errorf("took %v: keys wait for each other", took)
		}
	})
}
