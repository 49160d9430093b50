package protobuf_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/codecs/protobuf"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type placed struct {
	N int `json:"n"`
}

func (placed) EventType() string { return "order.placed" }

// newBus makes a bus that ends with the test, on a transport of its own.
func newBus(t *testing.T, cfg bus.Config) *bus.Bus {
	t.Helper()
	transport, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Source = "shop"
	b, err := bus.New(transport, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := transport.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// One bus writes each type in its own encoding and reads both, in either mode of
// CloudEvents.
func TestBusWithTwoCodecs(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]bus.Config{
		"protobuf first":  {Codecs: []bus.Codec{protobuf.Codec{}, bus.JSON{}}},
		"JSON first":      {Codecs: []bus.Codec{bus.JSON{}, protobuf.Codec{}}},
		"structured mode": {Codecs: []bus.Codec{protobuf.Codec{}, bus.JSON{}}, StructuredMode: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBus(t, cfg)
				bus.Register[*wrapperspb.StringValue](b, "greeting.sent")
				var got []string
				note := func(ctx context.Context, what string) error {
					md, _ := events.MetadataFrom(ctx)
					got = append(got, md.Type+" "+md.DataContentType+" "+what)
					return nil
				}
				s := b.Subscription("a", bus.Concurrency(1))
				bus.On(s, func(ctx context.Context, e *wrapperspb.StringValue) error { return note(ctx, e.GetValue()) })
				bus.On(s, func(ctx context.Context, e placed) error { return note(ctx, strings.Repeat("n", e.N)) })
				if err := b.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := b.PublishAll(t.Context(), wrapperspb.String("hello"), placed{N: 3}, wrapperspb.String("")); err != nil {
					t.Fatal(err)
				}
				raw := bus.Raw{Metadata: events.Metadata{Type: "greeting.sent", DataContentType: "application/x-protobuf"}, Data: []byte("\x0a\x03old")}
				if err := b.PublishRaw(t.Context(), raw); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				want := []string{
					"greeting.sent application/protobuf hello", "order.placed application/json nnn",
					"greeting.sent application/protobuf ", "greeting.sent application/x-protobuf old",
				}
				if strings.Join(got, "\n") != strings.Join(want, "\n") {
					t.Errorf("handled\n%q, want\n%q", got, want)
				}
			})
		})
	}
}

// JSON could write messages that have a JSON form of their own, so the order decides.
func TestFirstCodecWritesWhatBothCan(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		codecs []bus.Codec
		want   string
	}{
		"protobuf first": {[]bus.Codec{protobuf.Codec{}, bus.JSON{}}, "application/protobuf"},
		"JSON first":     {[]bus.Codec{bus.JSON{}, protobuf.Codec{}}, "application/json"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBus(t, bus.Config{Codecs: tt.codecs})
				bus.Register[*structpb.Struct](b, "form.filled")
				sent, err := structpb.NewStruct(map[string]any{"a": "b"})
				if err != nil {
					t.Fatal(err)
				}
				handled := 0
				bus.Subscribe(b, "a", func(ctx context.Context, e *structpb.Struct) error {
					handled++
					md, _ := events.MetadataFrom(ctx)
					if md.DataContentType != tt.want || !proto.Equal(e, sent) {
						t.Errorf("%s %v, want %s %v", md.DataContentType, e, tt.want, sent)
					}
					return nil
				})
				if err := b.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := b.Publish(t.Context(), sent); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if handled != 1 {
					t.Errorf("handled %d times, want once", handled)
				}
			})
		})
	}
}

func TestBadDataIsPoisonedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, bus.Config{Codecs: []bus.Codec{protobuf.Codec{}, bus.JSON{}}})
		bus.Register[*wrapperspb.StringValue](b, "greeting.sent")
		bus.Subscribe(b, "a", func(context.Context, *wrapperspb.StringValue) error {
			t.Error("the handler was called")
			return nil
		}, bus.Concurrency(1))
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		for contentType, data := range map[string]string{"application/protobuf": "\x0a\xff", "application/json": `{"value":"x"}`} {
			raw := bus.Raw{Metadata: events.Metadata{Type: "greeting.sent", DataContentType: contentType}, Data: []byte(data)}
			if err := b.PublishRaw(t.Context(), raw); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		poisoned := 0
		for p, err := range b.Poisoned(t.Context(), "a") {
			if err != nil {
				t.Fatal(err)
			}
			poisoned++
			if !strings.HasPrefix(p.Reason, "decode greeting.sent (application/") {
				t.Errorf("reason %q", p.Reason)
			}
		}
		if poisoned != 2 {
			t.Errorf("%d poisoned, want 2", poisoned)
		}
	})
}

func TestWithoutTheCodecAMessageIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, bus.Config{})
		bus.Register[*wrapperspb.StringValue](b, "greeting.sent")
		err := b.Publish(t.Context(), wrapperspb.String("hello"))
		if err == nil || !strings.Contains(err.Error(), "*wrapperspb.StringValue can be encoded by no codec") {
			t.Errorf("publish: %v", err)
		}
	})
}
