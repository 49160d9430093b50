package bus_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

func TestPublishedEventCarriesCloudEventsAttributes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var got notes[events.Metadata]
		bus.Subscribe(s.Bus, "a", func(ctx context.Context, _ placed) error {
			md, ok := events.MetadataFrom(ctx)
			check(t, "metadata present", ok, true)
			got.add(md)
			return nil
		})
		s.start()
		now := time.Now()
		s.publish(placed{N: 1, Key: "k"})
		settle()

		md := got.get()[0]
		id, err := uuid.Parse(md.ID)
		if err != nil || id.Version() != 7 {
			t.Errorf("id %q is no UUIDv7: %v", md.ID, err)
		}
		check(t, "source", md.Source, "shop")
		check(t, "type", md.Type, "order.placed")
		check(t, "time", md.Time.Equal(now), true)
		check(t, "content type", md.DataContentType, "application/json")
		check(t, "partition key", md.PartitionKey, "k")
		check(t, "correlation id", md.CorrelationID, md.ID)
		check(t, "causation id", md.CausationID, "")
		check(t, "subscription", md.Subscription, "shop.a")
		check(t, "attempt", md.Attempt, 1)
	})
}

func TestPublishOptionsSetAttributes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var got notes[events.Metadata]
		bus.Subscribe(s.Bus, "a", func(ctx context.Context, _ placed) error {
			md, _ := events.MetadataFrom(ctx)
			got.add(md)
			return nil
		})
		s.start()
		at := time.Date(2020, 2, 3, 4, 5, 6, 7, time.UTC)
		err := s.Publish(t.Context(), placed{Key: "own"}, bus.WithID("id 1"), bus.WithKey("k"), bus.WithSubject("s"),
			bus.WithTime(at), bus.WithCorrelationID("c"), bus.WithExtension("region", "eu"), bus.WithDelay(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		pass(time.Minute - time.Nanosecond)
		check(t, "events before the delay is over", len(got.get()), 0)
		pass(time.Nanosecond)
		check(t, "events after it", len(got.get()), 1)
		md := got.get()[0]
		check(t, "id", md.ID, "id 1")
		check(t, "key", md.PartitionKey, "k")
		check(t, "subject", md.Subject, "s")
		check(t, "time", md.Time, at)
		check(t, "correlation id", md.CorrelationID, "c")
		check(t, "extension", md.Extensions["region"], "eu")
	})
}

func TestPublishInAHandlerInheritsCorrelationAndCause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var first, second notes[events.Metadata]
		bus.Subscribe(s.Bus, "pay", func(ctx context.Context, e placed) error {
			md, _ := events.MetadataFrom(ctx)
			first.add(md)
			return s.Publish(ctx, paid{N: e.N})
		})
		bus.Subscribe(s.Bus, "ship", func(ctx context.Context, _ paid) error {
			md, _ := events.MetadataFrom(ctx)
			second.add(md)
			return nil
		})
		s.start()
		if err := s.Publish(t.Context(), placed{}, bus.WithCorrelationID("journey")); err != nil {
			t.Fatal(err)
		}
		settle()
		check(t, "correlation id", second.get()[0].CorrelationID, "journey")
		check(t, "causation id", second.get()[0].CausationID, first.get()[0].ID)
	})
}

func TestCauseWithoutCorrelationIDBecomesTheCorrelation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var got notes[events.Metadata]
		bus.Subscribe(s.Bus, "pay", func(ctx context.Context, _ placed) error { return s.Publish(ctx, paid{}) })
		bus.Subscribe(s.Bus, "ship", func(ctx context.Context, _ paid) error {
			md, _ := events.MetadataFrom(ctx)
			got.add(md)
			return nil
		})
		s.start()
		raw := bus.Raw{Metadata: events.Metadata{ID: "foreign", Type: "order.placed"}, Data: []byte("{}")}
		if err := s.PublishRaw(t.Context(), raw); err != nil {
			t.Fatal(err)
		}
		settle()
		check(t, "correlation id", got.get()[0].CorrelationID, "foreign")
	})
}

type number64 int64 // no event

type sometimes struct{ Name string }

func (sometimes) EventType() string { return "" }

type strict struct{ Email string }

func (strict) EventType() string { return "strict" }

func (s strict) Validate() error {
	if s.Email == "" {
		return &events.ValidationError{Field: "email", Problem: "is empty"}
	}
	return nil
}

type unencodable struct{ C chan int }

func (unencodable) EventType() string { return "unencodable" }

func TestPublishRefusesBadInputAndSendsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := newBroker(t, memory.Config{MaxMessageBytes: 100})
		s := newSetupOn(t, broker, bus.Config{})
		var seen notes[events.Metadata]
		bus.SubscribeRaw(s.Bus, "all", []string{"#"}, func(_ context.Context, raw bus.Raw) error {
			seen.add(raw.Metadata)
			return nil
		})
		s.start()

		var typeErr *bus.TypeError
		var fieldErr *events.ValidationError
		for name, c := range map[string]struct {
			event any
			opts  []bus.PublishOption
			as    any   // errors.As target, or
			is    error // errors.Is target
			text  string
		}{
			"nil":               {event: nil, as: &typeErr, text: "nil is not an event"},
			"nil pointer":       {event: (*placed)(nil), as: &typeErr, text: "is nil"},
			"pointer":           {event: &placed{}, as: &typeErr, text: "*bus_test.placed is a pointer and not registered"},
			"no EventType":      {event: number64(1), as: &typeErr, text: "bus.Register[bus_test.number64]"},
			"empty type":        {event: sometimes{}, as: &typeErr, text: "is empty"},
			"invalid":           {event: strict{}, as: &fieldErr, text: "publish strict: email is empty"},
			"can't be encoded":  {event: unencodable{}, text: "publish unencodable: encode"},
			"too large":         {event: strict{Email: strings.Repeat("x", 100)}, is: transports.ErrTooLarge, text: "limit 100"},
			"control character": {event: placed{}, opts: []bus.PublishOption{bus.WithSubject("a\x00b")}, as: &fieldErr, text: "subject has the control character U+0000"},
			"key with newline":  {event: placed{Key: "a\nb"}, as: &fieldErr, text: "partitionkey has the control character"},
			"extension name":    {event: placed{}, opts: []bus.PublishOption{bus.WithExtension("Bad-Name", "x")}, as: &fieldErr, text: "Bad-Name"},
		} {
			err := s.Publish(t.Context(), c.event, c.opts...)
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%s: error is %v, want one with %q", name, err, c.text)
			}
			if c.as != nil && !errors.As(err, c.as) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%s: error %v has the wrong type", name, err)
			}
		}
		settle()
		check(t, "events that came through", len(seen.get()), 0)
	})
}

func TestPublishAllSendsNothingWhenOneEventIsBad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var got notes[int]
		bus.Subscribe(s.Bus, "a", got.numbers(number))
		s.start()
		err := s.PublishAll(t.Context(), placed{N: 1}, strict{}, placed{N: 2}, nil)
		for _, want := range []string{"event 1 of 4: email is empty", "event 3 of 4: nil is not an event"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error is %v, want one with %q", err, want)
			}
		}
		settle()
		check(t, "events that came through", len(got.get()), 0)
		if err := s.PublishAll(t.Context()); err != nil {
			t.Errorf("nothing to publish: %v", err)
		}
	})
}

func TestPublishAllKeepsOrderAcrossTypes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var got notes[string]
		sub := s.Subscription("projection", bus.Concurrency(1))
		bus.On(sub, func(_ context.Context, e placed) error { got.add("placed"); return nil })
		bus.On(sub, func(_ context.Context, e paid) error { got.add("paid"); return nil })
		s.start()
		s.publish(placed{}, paid{}, paid{}, placed{})
		settle()
		checkAll(t, "events", got.get(), []string{"placed", "paid", "paid", "placed"})
	})
}

func TestPublishIsHeldBackByAFullQueueUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := newBroker(t, memory.Config{QueueSize: 4})
		s := newSetupOn(t, broker, bus.Config{})
		release := make(chan struct{})
		bus.Subscribe(s.Bus, "slow", func(context.Context, placed) error { <-release; return nil }, bus.Concurrency(1))
		s.start()
		for i := range 4 {
			s.publish(placed{N: i})
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("no patience"))
		defer cancel()
		if err := s.Publish(ctx, placed{N: 4}); err == nil || !strings.Contains(err.Error(), "no patience") {
			t.Errorf("error is %v, want the context's cause", err)
		}
		check(t, "depth", s.depth("slow").Ready+s.depth("slow").InFlight, 4)
		close(release)
	})
}

// A publisher that is faster than its handlers must not fill the memory.
func TestFastPublisherNeverFillsTheQueueBeyondItsSize(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 8
		s := newSetupOn(t, newBroker(t, memory.Config{QueueSize: size}), bus.Config{})
		var handled notes[int]
		bus.Subscribe(s.Bus, "slow", func(_ context.Context, e placed) error {
			time.Sleep(time.Millisecond) // virtual: the handler's work
			handled.add(e.N)
			return nil
		}, bus.Concurrency(2))
		s.start()
		most := 0
		for i := range 200 {
			s.publish(placed{N: i})
			d := s.depth("slow")
			most = max(most, d.Ready+d.InFlight+d.Delayed)
		}
		pass(time.Second)
		check(t, "handled", len(handled.get()), 200)
		check(t, "most events in the queue", most, size)
	})
}

func TestPublishMiddlewareWrapsInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls notes[string]
		wrap := func(name string) bus.PublishMiddleware {
			return func(next bus.PublishFunc) bus.PublishFunc {
				return func(ctx context.Context, batch []transports.Outgoing) error {
					calls.add(name + " " + batch[0].Topic)
					batch[0].Message.Metadata["ce_region"] += name
					return next(ctx, batch)
				}
			}
		}
		s := newSetup(t, bus.Config{PublishMiddleware: []bus.PublishMiddleware{wrap("outer"), wrap("inner")}})
		var got notes[string]
		bus.Subscribe(s.Bus, "a", func(ctx context.Context, _ placed) error {
			md, _ := events.MetadataFrom(ctx)
			got.add(md.Extensions["region"])
			return nil
		})
		s.start()
		s.publish(placed{})
		settle()
		checkAll(t, "calls", calls.get(), []string{"outer order.placed", "inner order.placed"})
		checkAll(t, "extensions", got.get(), []string{"outerinner"})
	})
}

func TestPublishRawSendsAnEventAsItStands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var got notes[bus.Raw]
		bus.SubscribeRaw(s.Bus, "all", []string{"#"}, func(_ context.Context, raw bus.Raw) error {
			got.add(raw)
			return nil
		}, bus.Concurrency(1))
		s.start()
		data := []byte{0, 1, 2, 0xff}
		md := events.Metadata{
			ID: "1", Source: "elsewhere", Type: "any.type", DataContentType: "application/octet-stream",
			Extensions: map[string]string{"x": "y"},
		}
		if err := s.PublishRaw(t.Context(), bus.Raw{Metadata: md, Data: data}); err != nil {
			t.Fatal(err)
		}
		if err := s.PublishRaw(t.Context(), bus.Raw{Metadata: events.Metadata{Type: "bare"}}); err != nil {
			t.Fatal(err)
		}
		if err := s.PublishRaw(t.Context(), bus.Raw{}); err == nil || !strings.Contains(err.Error(), "type is empty") {
			t.Errorf("error of an event without a type is %v", err)
		}
		settle()
		raws := got.get()
		check(t, "events", len(raws), 2)
		check(t, "data", string(raws[0].Data), string(data))
		check(t, "source", raws[0].Metadata.Source, "elsewhere")
		check(t, "time", raws[0].Metadata.Time.IsZero(), true)
		check(t, "correlation id", raws[0].Metadata.CorrelationID, "")
		check(t, "extension", raws[0].Metadata.Extensions["x"], "y")
		check(t, "source that is filled in", raws[1].Metadata.Source, "shop")
		check(t, "id is filled in", raws[1].Metadata.ID != "", true)
	})
}

// plain hides the optional capabilities of a transport.
type plain struct{ t transports.Transport }

func (p plain) Publish(topic string, msgs ...*message.Message) error {
	return p.t.Publish(topic, msgs...)
}

func (p plain) Subscribe(ctx context.Context, s transports.Subscription) (<-chan *message.Message, error) {
	return p.t.Subscribe(ctx, s)
}
func (p plain) Close() error { return p.t.Close() }

func TestBatchOnATransportWithoutBatchesSaysWhichEventsFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := newBroker(t, memory.Config{MaxMessageBytes: 12})
		transport := connect(t, broker)
		b := newBus(t, plain{transport}, bus.Config{Source: "shop"})
		var partial *transports.PublishError
		err := b.PublishAll(t.Context(), placed{}, paid{}, paid{N: 1234567890}, placed{N: 1}, placed{N: 1234567890})
		if !errors.As(err, &partial) {
			t.Fatalf("error is %v, want a PublishError", err)
		}
		var indexes []int
		for _, f := range partial.Failures {
			indexes = append(indexes, f.Index)
		}
		checkAll(t, "indexes of what failed", indexes, []int{2, 4})
		check(t, "is ErrTooLarge", errors.Is(err, transports.ErrTooLarge), true)

		if err := transport.Close(); err != nil {
			t.Fatal(err)
		}
		if err := b.PublishAll(t.Context(), placed{}, paid{}, paid{}); !errors.As(err, &partial) {
			t.Fatalf("error is %v, want a PublishError", err)
		}
		check(t, "failures", len(partial.Failures), 3)
		check(t, "index of the last", partial.Failures[2].Index, 2)

		err = b.Publish(t.Context(), placed{}, bus.WithDelay(time.Second))
		check(t, "delay is unsupported", errors.Is(err, transports.ErrUnsupported), true)
	})
}

// With a queue of one, a handler that waited for room in its own queue would wait
// for ever.
func TestHandlerThatPublishesToItsOwnFullQueueGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetupOn(t, newBroker(t, memory.Config{QueueSize: 1}), bus.Config{})
		var got notes[int]
		bus.Subscribe(s.Bus, "countdown", func(ctx context.Context, e placed) error {
			got.add(e.N)
			if e.N == 0 {
				return nil
			}
			return s.Publish(ctx, placed{N: e.N - 1})
		}, bus.Concurrency(1))
		s.start()
		s.publish(placed{N: 5})
		settle()
		checkAll(t, "events", got.get(), []int{5, 4, 3, 2, 1, 0})
	})
}
