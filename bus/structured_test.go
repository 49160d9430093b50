package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

const structuredType = "application/cloudevents+json"

// foreign publishes a message as a service with another library would.
func (s *setup) foreign(id, payload string, metadata message.Metadata) {
	s.t.Helper()
	msg := message.NewMessage(id, []byte(payload))
	msg.Metadata = metadata
	if err := s.transport.Publish("order.placed", msg); err != nil {
		s.t.Fatal(err)
	}
}

// envelope is an event in the JSON format.
func envelope(id string, n int, members string) string {
	return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/their","type":"order.placed"%s,"data":{"n":%d}}`, id, members, n)
}

func TestStructuredEventIsUnwrappedBeforeAnythingLooksAtIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var got, next, raw notes[events.Metadata]
		var data notes[string]
		bus.Subscribe(s.Bus, "typed", func(ctx context.Context, e placed) error {
			md, _ := events.MetadataFrom(ctx)
			got.add(md)
			return s.Publish(ctx, paid{N: e.N})
		})
		bus.Subscribe(s.Bus, "next", func(ctx context.Context, _ paid) error {
			md, _ := events.MetadataFrom(ctx)
			next.add(md)
			return nil
		})
		bus.SubscribeRaw(s.Bus, "raw", []string{"order.placed"}, func(_ context.Context, e bus.Raw) error {
			raw.add(e.Metadata)
			data.add(string(e.Data))
			return nil
		})
		s.start()
		s.foreign("outer id", envelope("inner id", 7, `,"correlationid":"journey","tenant":"a"`), message.Metadata{
			"content-type": "Application/CloudEvents+JSON; charset=UTF-8",
			"ce_source":    "outer", "ce_correlationid": "outer", "ce_subject": "outer", "ce_type": "outer", "ce_left": "outer",
			"foreign": "kept",
		})
		settle()

		md := got.get()[0]
		check(t, "id", md.ID, "inner id")
		check(t, "source", md.Source, "/their")
		check(t, "type", md.Type, "order.placed")
		check(t, "content type", md.DataContentType, "application/json")
		check(t, "correlation id", md.CorrelationID, "journey")
		check(t, "subject, which is not inside", md.Subject, "")
		check(t, "extensions", fmt.Sprint(md.Extensions), "map[tenant:a]")
		check(t, "subscription", md.Subscription, "shop.typed")
		check(t, "attempt", md.Attempt, 1)
		check(t, "correlation id of what it caused", next.get()[0].CorrelationID, "journey")
		check(t, "causation id of what it caused", next.get()[0].CausationID, "inner id")
		check(t, "id of the raw event", raw.get()[0].ID, "inner id")
		check(t, "content type of the raw event", raw.get()[0].DataContentType, "application/json")
		check(t, "data of the raw event", data.get()[0], `{"n":7}`)
		check(t, "id that OnDelivery was told", s.steps.all[0].Metadata.ID, "inner id")
	})
}

// The copies have message ids of their own, as a Watermill publisher makes them.
func TestStructuredEventIsDeduplicatedByTheIDInside(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var got notes[int]
		bus.Subscribe(s.Bus, "a", got.numbers(number))
		s.start()
		in := message.Metadata{"content-type": structuredType}
		binary := message.Metadata{"ce_source": "/their", "ce_type": "order.placed"}
		for _, send := range []func(){
			func() { s.foreign("x", envelope("1", 1, ""), in) },
			func() { s.foreign("y", envelope("1", 1, ""), in) },
			func() { s.foreign("x", envelope("2", 2, ""), in) },
			func() { s.foreign("1", `{"n":1}`, binary) },
		} {
			send()
			settle()
		}
		checkAll(t, "handled", got.get(), []int{1, 2})
		checkAll(t, "outcomes", s.steps.outcomes("a"), []string{"handled", "deduplicated", "handled", "deduplicated"})
	})
}

func TestStructuredEventsAreOrderedByTheKeyInside(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var calls notes[string]
		bus.Subscribe(s.Bus, "o", func(ctx context.Context, e placed) error {
			md, _ := events.MetadataFrom(ctx)
			calls.add(fmt.Sprint("+", md.PartitionKey, e.N))
			time.Sleep(time.Second) // virtual
			calls.add(fmt.Sprint("-", md.PartitionKey, e.N))
			return nil
		}, bus.Ordered())
		s.start()
		for i, key := range []string{"a", "a", "b"} {
			s.foreign("", envelope(fmt.Sprint(i), i, `,"partitionkey":"`+key+`"`), message.Metadata{"content-type": structuredType})
		}
		settle()
		check(t, "events begun at once", len(calls.get()), 2) // a0 and b2
		pass(time.Minute)
		checkAll(t, "lane of key a", only(calls.get(), "a"), []string{"+a0", "-a0", "+a1", "-a1"})
	})
}

func only(all []string, key string) (out []string) {
	for _, s := range all {
		if s[1:2] == key {
			out = append(out, s)
		}
	}
	return out
}

// What is kept of it is the event in binary mode, under its own id, with the attempts.
func TestStructuredEventThatFailsComesBackAndIsPoisonedUnderItsID(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var attempts notes[int]
		fail := true
		bus.Subscribe(s.Bus, "a", func(ctx context.Context, _ placed) error {
			md, _ := events.MetadataFrom(ctx)
			attempts.add(md.Attempt)
			if fail {
				return errors.New("no")
			}
			return nil
		}, bus.Retry(exact(1, time.Second)))
		s.start()
		s.foreign("outer", envelope("inner", 1, ""), message.Metadata{"content-type": structuredType, "foreign": "kept"})
		pass(time.Minute)
		checkAll(t, "attempts", attempts.get(), []int{1, 2})
		p := s.poisoned("a")[0]
		check(t, "key", p.Key(), transports.EventKey{Source: "/their", ID: "inner"})
		check(t, "payload", string(p.Message.Payload), `{"n":1}`)
		check(t, "topic", p.Topic, "order.placed")
		check(t, "foreign metadata", p.Message.Metadata["foreign"], "kept")

		fail = false
		n, err := s.Redrive(t.Context(), "a", bus.Selection{})
		if n != 1 || err != nil {
			t.Errorf("redrive: %d, %v", n, err)
		}
		settle()
		check(t, "attempt after redrive", attempts.get()[2], 1)
	})
}

// The topic says where it was published, not what it is.
func TestStructuredEventKeepsItsTopic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		bus.SubscribeRaw(s.Bus, "a", []string{"#"}, func(context.Context, bus.Raw) error {
			return bus.Permanent(errors.New("no"))
		})
		s.start()
		renamed := func(id string) string {
			return strings.Replace(envelope(id, 1, ""), "order.placed", "order.renamed", 1)
		}
		s.foreign("1", renamed("1"), message.Metadata{"content-type": structuredType})
		s.foreign("2", renamed("2"), message.Metadata{"content-type": structuredType, "ce_type": "order.placed"})
		settle()
		check(t, "poisoned", len(s.poisoned("a")), 2)
		for _, p := range s.poisoned("a") {
			check(t, "topic", p.Topic, "order.placed")
			check(t, "type", p.Message.Metadata["ce_type"], "order.renamed")
		}
	})
}

func TestMalformedStructuredEventIsPoisonedAtOnceAsItCame(t *testing.T) {
	t.Parallel()
	nested := strings.Replace(envelope("1", 1, ""), `"data"`, `"datacontenttype":"application/cloudevents+json","data"`, 1)
	for name, c := range map[string]struct{ contentType, payload, reason, errorType string }{
		"no JSON":     {structuredType, "\xff", "decode order.placed (application/cloudevents+json): not JSON: not valid UTF-8", "*events.FormatError"},
		"nothing":     {structuredType, "", "there is nothing but white space", "*events.FormatError"},
		"no event":    {structuredType + "; charset=utf-8", "{}", "id is empty; source is empty; type is empty; specversion is missing", "*events.FormatError"},
		"duplicate":   {structuredType, `{"id":"1","id":"2"}`, `the member "id" is there twice`, "*events.FormatError"},
		"in capitals": {"APPLICATION/CLOUDEVENTS+JSON", "[]", "not a JSON object", "*events.FormatError"},
		"batch":       {"application/cloudevents-batch+json", "[" + envelope("1", 1, "") + "]", "a batch of events is not supported", "*errors.errorString"},
		"empty batch": {"application/cloudevents-batch+json;a=b", "[]", "a batch of events is not supported", "*errors.errorString"},
		"nested":      {structuredType, nested, "the data has a content type of structured mode itself", "*errors.errorString"},
	} {
		for _, kind := range []string{"typed", "raw", "ordered"} {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newSetup(t, bus.Config{})
					calls := 0
					typed := func(context.Context, placed) error { calls++; return nil }
					switch kind {
					case "typed":
						bus.Subscribe(s.Bus, "a", typed)
					case "ordered":
						bus.Subscribe(s.Bus, "a", typed, bus.Ordered())
					case "raw":
						bus.SubscribeRaw(s.Bus, "a", []string{"#"}, func(context.Context, bus.Raw) error { calls++; return nil })
					}
					s.start()
					s.foreign("outer", c.payload, message.Metadata{"content-type": c.contentType, "ce_source": "x", "foreign": "kept"})
					settle()
					check(t, "calls", calls, 0)
					checkAll(t, "outcomes", s.steps.outcomes("a"), []string{"poisoned"})
					if _, ok := errors.AsType[*bus.DecodeError](s.steps.all[0].Err); !ok {
						t.Errorf("error is %v, want a DecodeError", s.steps.all[0].Err)
					}
					p := s.poisoned("a")[0]
					if !strings.Contains(p.Reason, c.reason) {
						t.Errorf("reason is %q, want one with %q", p.Reason, c.reason)
					}
					check(t, "error type", p.ErrorType, c.errorType)
					check(t, "id", p.Message.UUID, "outer")
					check(t, "payload", string(p.Message.Payload), c.payload)
					check(t, "content type", p.Message.Metadata["content-type"], c.contentType)
					check(t, "foreign metadata", p.Message.Metadata["foreign"], "kept")
					check(t, "in the queue", s.depth("a").Ready+s.depth("a").InFlight+s.depth("a").Delayed, 0)
				})
			})
		}
	}
}

// Its id is inside and can't be read, so it must not be taken for a copy of what has
// the message's.
func TestMalformedStructuredEventIsNeverADuplicate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var got notes[int]
		bus.Subscribe(s.Bus, "a", got.numbers(number))
		s.start()
		s.foreign("1", `{"n":1}`, message.Metadata{"ce_source": "x"})
		settle()
		s.foreign("1", `{"n":2`, message.Metadata{"ce_source": "x", "content-type": structuredType})
		settle()
		checkAll(t, "outcomes", s.steps.outcomes("a"), []string{"handled", "poisoned"})
	})
}

// On a transport without poison queues poisoned events are published to a topic. Whoever
// keeps them from there must get them, and must not poison them to the same topic.
func TestPoisonedStructuredEventCanBeKeptFromItsTopic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		transport := connect(t, newBroker(t, memory.Config{}))
		b := newBus(t, plain{transport}, bus.Config{Source: "shop"})
		var kept notes[string]
		bus.Subscribe(b, "a", func(context.Context, placed) error { return nil })
		bus.SubscribeRaw(b, "keep", []string{"poison.#"}, func(_ context.Context, raw bus.Raw) error {
			kept.add(raw.Metadata.DataContentType + " " + string(raw.Data))
			return nil
		})
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		msg := message.NewMessage("1", []byte("[]"))
		msg.Metadata = message.Metadata{"content-type": structuredType}
		if err := transport.Publish("order.placed", msg); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		checkAll(t, "kept", kept.get(), []string{structuredType + " []"})
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A raw subscription can forward the event formats that the bus does not read.
func TestOtherEventFormatsAreLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var got notes[string]
		bus.SubscribeRaw(s.Bus, "a", []string{"#"}, func(_ context.Context, raw bus.Raw) error {
			got.add(raw.Metadata.ID + " " + raw.Metadata.DataContentType + " " + string(raw.Data))
			return nil
		})
		s.start()
		s.foreign("1", "<event/>", message.Metadata{"content-type": "application/cloudevents+xml"})
		settle()
		checkAll(t, "events", got.get(), []string{"1 application/cloudevents+xml <event/>"})
	})
}

func TestStructuredModePublishesBoth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := newBroker(t, memory.Config{})
		transport := connect(t, broker)
		in, err := transport.Subscribe(t.Context(), transports.Subscription{Name: "there", Topics: []string{"#"}, Concurrency: 10})
		if err != nil {
			t.Fatal(err)
		}
		// A middleware of the user's: what it adds must be inside too.
		addRegion := func(next bus.PublishFunc) bus.PublishFunc {
			return func(ctx context.Context, batch []transports.Outgoing) error {
				for _, out := range batch {
					out.Message.Metadata["ce_region"] = "eu"
				}
				return next(ctx, batch)
			}
		}
		s := newSetupOn(t, broker, bus.Config{StructuredMode: true, PublishMiddleware: []bus.PublishMiddleware{addRegion}})
		at := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
		if err := s.Publish(t.Context(), placed{N: 1, Key: "k"}, bus.WithID("e1"), bus.WithTime(at)); err != nil {
			t.Fatal(err)
		}
		msg := <-in
		msg.Ack()
		check(t, "payload", string(msg.Payload), `{"specversion":"1.0","id":"e1","source":"shop","type":"order.placed","datacontenttype":"application/json",`+
			`"correlationid":"e1","partitionkey":"k","time":"2026-02-03T04:05:06Z","region":"eu","data":{"n":1,"key":"k"}}`)
		check(t, "message id", msg.UUID, "e1")
		check(t, "metadata", fmt.Sprint(msg.Metadata), "map[ce_correlationid:e1 ce_partitionkey:k ce_region:eu ce_source:shop "+
			"ce_time:2026-02-03T04:05:06Z ce_type:order.placed content-type:application/cloudevents+json]")
	})
}

func TestStructuredModeOutAndIn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{StructuredMode: true})
		var got notes[int]
		var raw notes[bus.Raw]
		bus.Subscribe(s.Bus, "a", got.numbers(number), bus.Concurrency(1))
		bus.SubscribeRaw(s.Bus, "raw", []string{"image.taken"}, func(_ context.Context, e bus.Raw) error {
			raw.add(e)
			return nil
		}, bus.Concurrency(1))
		s.start()
		s.publish(placed{N: 1}, placed{N: 2})
		for _, data := range [][]byte{{0, 0xff}, nil} {
			if err := s.PublishRaw(t.Context(), bus.Raw{Metadata: events.Metadata{Type: "image.taken", DataContentType: "image/png"}, Data: data}); err != nil {
				t.Fatal(err)
			}
		}
		settle()
		checkAll(t, "numbers", got.get(), []int{1, 2})
		check(t, "binary data", string(raw.get()[0].Data), "\x00\xff")
		check(t, "content type", raw.get()[0].Metadata.DataContentType, "image/png")
		check(t, "bytes of no data", len(raw.get()[1].Data), 0)
	})
}

// An event that a bridge has in structured mode is not wrapped a second time.
func TestStructuredModeLeavesWhatIsStructured(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{StructuredMode: true})
		var got notes[int]
		var ids notes[string]
		bus.Subscribe(s.Bus, "a", func(ctx context.Context, e placed) error {
			md, _ := events.MetadataFrom(ctx)
			ids.add(md.ID)
			got.add(e.N)
			return nil
		})
		s.start()
		raw := bus.Raw{Metadata: events.Metadata{Type: "order.placed", DataContentType: structuredType}, Data: []byte(envelope("inner", 3, ""))}
		if err := s.PublishRaw(t.Context(), raw); err != nil {
			t.Fatal(err)
		}
		settle()
		checkAll(t, "numbers", got.get(), []int{3})
		checkAll(t, "ids", ids.get(), []string{"inner"})
	})
}

// A middleware that tries again has its own messages still, not the wrapped ones.
func TestStructuredModeLeavesTheMessagesOfPublishMiddleware(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var payloads notes[string]
		again := func(next bus.PublishFunc) bus.PublishFunc {
			return func(ctx context.Context, batch []transports.Outgoing) error {
				err := next(ctx, batch)
				payloads.add(string(batch[0].Message.Payload) + " " + batch[0].Message.Metadata["content-type"])
				return err
			}
		}
		s := newSetup(t, bus.Config{StructuredMode: true, PublishMiddleware: []bus.PublishMiddleware{again}})
		s.publish(placed{N: 1})
		checkAll(t, "messages", payloads.get(), []string{`{"n":1} application/json`})
	})
}

// Publish middleware can spoil an attribute, which binary mode would not notice.
func TestStructuredModeSendsNothingWhenOneEventCanNotBeWritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		spoil := func(next bus.PublishFunc) bus.PublishFunc {
			return func(ctx context.Context, batch []transports.Outgoing) error {
				batch[1].Message.Metadata["ce_subject"] = "a\nb"
				return next(ctx, batch)
			}
		}
		s := newSetup(t, bus.Config{StructuredMode: true, PublishMiddleware: []bus.PublishMiddleware{spoil}})
		var got notes[int]
		bus.Subscribe(s.Bus, "a", got.numbers(number))
		s.start()
		err := s.PublishAll(t.Context(), placed{N: 1}, placed{N: 2})
		if err == nil || !strings.Contains(err.Error(), "structured mode: event 1 of 2: subject has the control character") {
			t.Errorf("error is %v", err)
		}
		settle()
		check(t, "events sent", len(got.get()), 0)
	})
}
