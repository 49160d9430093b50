package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
)

func TestJSONAccepts(t *testing.T) {
	t.Parallel()
	for contentType, want := range map[string]bool{
		"": true, "application/json": true, "Application/JSON": true, "application/json; charset=utf-8": true,
		"text/json": true, "application/vnd.shop.v2+json": true, "application/problem+JSON;a=b": true,

		"text/plain": false, "application/xml": false, "application/jsonx": false, "json": false, ";": false,
		"application/x-protobuf": false, "application/json-seq": false, "application/json, text/html": false,

		// JSON, though not of the data.
		"application/cloudevents+json": false, "Application/CloudEvents+JSON; charset=utf-8": false, "application/cloudevents-batch+json": false,
	} {
		if got := (bus.JSON{}).Accepts(contentType); got != want {
			t.Errorf("Accepts(%q) = %t, want %t", contentType, got, want)
		}
	}
}

// FuzzJSONAccepts checks that no content type upsets the codec, and that case and
// parameters make no difference.
func FuzzJSONAccepts(f *testing.F) {
	f.Add("application/json")
	f.Add("application/vnd.a+json; q=1")
	f.Add("application/cloudevents+json")
	f.Add("/;=\"")
	f.Fuzz(func(t *testing.T, contentType string) {
		got := bus.JSON{}.Accepts(contentType)
		if contentType == "" || strings.ContainsAny(contentType, "; \t\r\n") {
			return
		}
		for _, same := range []string{contentType + ";a=b", " " + contentType + " ; a=b"} {
			if (bus.JSON{}).Accepts(same) != got {
				t.Errorf("Accepts(%q) = %t, Accepts(%q) = %t", contentType, got, same, !got)
			}
		}
	})
}

// generated stands for a type that protoc-gen-go made.
type generated struct{ Name string }

func (*generated) ProtoMessage() {}

// able is one with a JSON form.
type able struct{ generated }

func (able) MarshalJSON() ([]byte, error) { return []byte(`"able"`), nil }
func (*able) UnmarshalJSON([]byte) error  { return nil }

func TestJSONLeavesProtobufAlone(t *testing.T) {
	t.Parallel()
	codec := bus.JSON{}
	check(t, "encodes a protobuf message", codec.Encodes(&generated{}), false)
	check(t, "encodes one with a JSON form", codec.Encodes(&able{}), true)
	check(t, "encodes a struct", codec.Encodes(placed{}), true)
	if data, err := codec.Marshal(&generated{}); err == nil || !strings.Contains(err.Error(), "protobuf") {
		t.Errorf("marshalled %q, %v", data, err)
	}
	if err := codec.Unmarshal([]byte("{}"), &generated{}); err == nil || !strings.Contains(err.Error(), "protobuf") {
		t.Errorf("unmarshal: %v", err)
	}
	if data, err := codec.Marshal(&able{}); string(data) != `"able"` || err != nil {
		t.Errorf("marshalled %q, %v", data, err)
	}
	if err := codec.Unmarshal([]byte("{}"), &able{}); err != nil {
		t.Error(err)
	}
}

// tagged is JSON with a content type of its own, for events that a predicate chooses.
type tagged struct {
	bus.JSON
	tag     string
	encodes func(any) bool
}

func (c tagged) ContentType() string           { return "application/" + c.tag }
func (c tagged) Accepts(of string) bool        { return of == c.ContentType() }
func (c tagged) Encodes(event any) bool        { return c.encodes(event) }
func (c tagged) Marshal(e any) ([]byte, error) { return json.Marshal(e) }

// unselective has no Encodes.
type unselective struct{ bus.Codec }

func TestEventIsWrittenByTheFirstCodecThatEncodesIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		isPaid := func(event any) bool { _, ok := event.(paid); return ok }
		never := func(any) bool { return false }
		s := newSetup(t, bus.Config{Codecs: []bus.Codec{
			tagged{tag: "never", encodes: never},
			tagged{tag: "paid", encodes: isPaid},
			unselective{tagged{tag: "all", encodes: never}}, // which nobody can ask
			bus.JSON{},
		}})
		var got notes[string]
		sub := s.Subscription("a", bus.Concurrency(1))
		note := func(ctx context.Context) error {
			md, _ := events.MetadataFrom(ctx)
			got.add(md.Type + " " + md.DataContentType)
			return nil
		}
		bus.On(sub, func(ctx context.Context, _ placed) error { return note(ctx) })
		bus.On(sub, func(ctx context.Context, _ paid) error { return note(ctx) })
		s.start()
		s.publish(placed{}, paid{})
		settle()
		checkAll(t, "events", got.get(), []string{"order.placed application/all", "order.paid application/paid"})
	})
}

func TestContentTypeDecidesWhichCodecReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		always := func(any) bool { return true }
		s := newSetup(t, bus.Config{Codecs: []bus.Codec{bus.JSON{}, tagged{tag: "x", encodes: always}, tagged{tag: "y", encodes: always}}})
		var got notes[int]
		bus.Subscribe(s.Bus, "a", got.numbers(number), bus.Concurrency(1))
		s.start()
		for i, contentType := range []string{"application/y", "application/x", "", "application/z"} {
			md := events.Metadata{Type: "order.placed", DataContentType: contentType}
			if err := s.PublishRaw(t.Context(), bus.Raw{Metadata: md, Data: []byte{'{', '"', 'n', '"', ':', byte('0' + i), '}'}}); err != nil {
				t.Fatal(err)
			}
		}
		settle()
		checkAll(t, "events", got.get(), []int{0, 1, 2})
		check(t, "what no codec reads", len(s.poisoned("a")), 1)
	})
}

func TestTypeThatNoCodecEncodesIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		bus.Register[*generated](s.Bus, "generated")
		err := s.Publish(t.Context(), &generated{})
		typeErr, ok := errors.AsType[*bus.TypeError](err)
		if !ok || typeErr.GoType != "*bus_test.generated" || !strings.Contains(err.Error(), "publish generated: *bus_test.generated can be encoded by no codec of Config.Codecs") {
			t.Errorf("publish: %v", err)
		}
		bus.Subscribe(s.Bus, "a", func(context.Context, *generated) error { return nil })
		if err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), `subscription "a": *bus_test.generated can be encoded by no codec`) {
			t.Errorf("start: %v", err)
		}
	})
}
