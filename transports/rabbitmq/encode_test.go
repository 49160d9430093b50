package rabbitmq

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

func TestEncodeFollowsTheCloudEventsBinding(t *testing.T) {
	t.Parallel()
	msg := message.NewMessage("7", []byte(`{"a":1}`))
	msg.Metadata = message.Metadata{
		"ce_source": "shop", "ce_type": "order.created", "ce_time": "2026-02-03T04:05:06.5Z", "ce_correlationid": "c",
		"ce_tenant": "t", "content-type": "application/json", "mine": "m",
	}
	want := amqp.Publishing{
		Headers: amqp.Table{
			"cloudEvents_id": "7", "cloudEvents_specversion": "1.0", "cloudEvents_source": "shop", "cloudEvents_type": "order.created",
			"cloudEvents_time": "2026-02-03T04:05:06.5Z", "cloudEvents_correlationid": "c", "cloudEvents_tenant": "t",
			"_watermill_message_uuid": "7", "mine": "m",
		},
		ContentType: "application/json", DeliveryMode: amqp.Persistent, MessageId: "7", Type: "order.created", AppId: "shop", CorrelationId: "c",
		Timestamp: time.Date(2026, 2, 3, 4, 5, 6, 500_000_000, time.UTC), Body: []byte(`{"a":1}`),
	}
	if diff := cmp.Diff(want, encode(msg)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// delivered makes a delivery of what encode made, as the broker would.
func delivered(p amqp.Publishing, exchange, key string) *amqp.Delivery {
	return &amqp.Delivery{
		Headers: p.Headers, ContentType: p.ContentType, MessageId: p.MessageId, Type: p.Type, AppId: p.AppId,
		CorrelationId: p.CorrelationId, Timestamp: p.Timestamp.Truncate(time.Second), Body: p.Body, Exchange: exchange, RoutingKey: key,
		ContentEncoding: p.ContentEncoding, ReplyTo: p.ReplyTo, Priority: p.Priority, Expiration: p.Expiration, UserId: p.UserId,
	}
}

func TestMetadataSurvivesTheWire(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 300)
	for name, metadata := range map[string]message.Metadata{
		"none":           {},
		"attributes":     {"ce_source": "shop", "ce_type": "a", "ce_time": "2026-02-03T04:05:06.123456789Z", "ce_subject": "s"},
		"empty values":   {"ce_subject": "", "content-type": "", "": "x"},
		"broker's names": {"x-death": "a", "x-delivery-count": "b", "CC": "c", "BCC": "d", "x-first-death-queue": "e"},
		"our own names":  {"cloudEvents_id": "a", "cloudEvents:type": "b", "tidings-due": "c", "tidings_amqp_x": "d", "_watermill_message_uuid": "e", "ce_id": "f", "ce_specversion": "g"},
		"library's":      {"tidings_attempts": "3", "tidings_topic": "t"},
		"properties": {
			"content-encoding": "gzip", "amqp-reply-to": "q", "amqp-priority": "9", "amqp-message-id": "m", "amqp-type": "t", "amqp-app-id": "a",
			"amqp-correlation-id": "c", "amqp-timestamp": "2026-02-03T04:05:06Z", "amqp-expiration": "1", "amqp-user-id": "root",
			"ce_type": "x", "ce_source": "x", "ce_correlationid": "x", "ce_time": "2026-02-03T04:05:07Z",
		},
		"no properties": {
			"content-encoding": "", "amqp-reply-to": long, "amqp-priority": "007", "amqp-timestamp": "noon", "amqp-type": "", "amqp-other": "x", "amqp-app-id": "x",
			"priority": "9", "expiration": "1", "reply-to": "amq.rabbitmq.reply-to",
		},
		"long":             {"content-type": long, "ce_type": long, "ce_source": long, "ce_correlationid": long},
		"no time":          {"ce_time": "yesterday"},
		"watermill's":      {"correlation_id": "c", "ce_correlationid": "c"},
		"not UTF-8":        {"a\xff": "b\xff\x00"},
		"attribute prefix": {"ce_": "a", "ce_Odd Name": "b"},
	} {
		msg := message.NewMessage("id-"+name, []byte("payload"))
		msg.Metadata = metadata
		got := decode(delivered(encode(msg), "", "q"), "events")
		if diff := cmp.Diff(metadata, got.Metadata); diff != "" {
			t.Errorf("%s (-published +received):\n%s", name, diff)
		}
		if got.UUID != msg.UUID || string(got.Payload) != "payload" {
			t.Errorf("%s: received %q with %q", name, got.UUID, got.Payload)
		}
		for header := range encode(msg).Headers {
			if header == "CC" || header == "BCC" || strings.HasPrefix(header, "x-") {
				t.Errorf("%s: the header %q means something to the broker", name, header)
			}
		}
	}
}

func TestDecodeTakesWhatAnyoneSends(t *testing.T) {
	t.Parallel()
	moment := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	got := decode(&amqp.Delivery{
		Headers: amqp.Table{
			"text": "t", "bytes": []byte("b"), "yes": true, "int": int32(-7), "byte": uint8(7), "float": 1.5, "none": nil,
			"time": moment, "money": amqp.Decimal{Scale: 2, Value: -7}, "cents": amqp.Decimal{Scale: 1, Value: 123}, "whole": amqp.Decimal{Value: 5},
			"table":               amqp.Table{"b": []byte("x"), "n": int64(1), "d": amqp.Decimal{Scale: 1, Value: 1}},
			"list":                []any{"a", int8(1), moment, nil},
			"x-death":             []any{amqp.Table{"queue": "q", "count": int64(2)}},
			"cloudEvents:subject": "s", "cloudEvents:id": "from-header", "x-delivery-count": int64(3),
		},
		MessageId: "from-property", Type: "a.type", AppId: "app", CorrelationId: "corr", ContentType: "text/plain", Timestamp: moment,
		Exchange: "events", RoutingKey: "a.topic", Body: []byte{0, 1},
	}, "events")
	want := message.Metadata{
		"amqp-message-id": "from-property",
		"text":            "t", "bytes": "b", "yes": "true", "int": "-7", "byte": "7", "float": "1.5", "none": "",
		"time": "2026-02-03T04:05:06Z", "money": "-0.07", "cents": "12.3", "whole": "5",
		"table": `{"b":"x","d":"0.1","n":1}`, "list": `["a",1,"2026-02-03T04:05:06Z",null]`,
		"x-death": `[{"count":2,"queue":"q"}]`, "ce_subject": "s", "ce_type": "a.type", "ce_source": "app", "ce_correlationid": "corr",
		"ce_time": "2026-02-03T04:05:06Z", "content-type": "text/plain", "tidings_topic": "a.topic",
	}
	if diff := cmp.Diff(want, got.Metadata); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	if got.UUID != "from-header" {
		t.Errorf("the id is %q", got.UUID)
	}

	watermills := decode(&amqp.Delivery{Headers: amqp.Table{"_watermill_message_uuid": "w", "correlation_id": "c"}, MessageId: "m"}, "events")
	if watermills.UUID != "w" || watermills.Metadata["ce_correlationid"] != "c" {
		t.Errorf("of plain Watermill: %q, %v", watermills.UUID, watermills.Metadata)
	}
	nobodys := decode(&amqp.Delivery{}, "events")
	if nobodys.UUID != "" || len(nobodys.Metadata) != 0 || nobodys.Payload != nil {
		t.Errorf("of nobody: %+v", nobodys)
	}
}

func TestBrokersHeadersOfOurOwnDelaysAreDropped(t *testing.T) {
	t.Parallel()
	headers := amqp.Table{"x-death": []any{}, "x-first-death-queue": "tidings.delay.00", "x-last-death-reason": "expired", "tidings-due": "tidings.retry", "tidings-delay-00": true, "mine": "m"}
	got := decode(&amqp.Delivery{Headers: headers, MessageId: "1", Exchange: "tidings.due", RoutingKey: "s"}, "events")
	if diff := cmp.Diff(message.Metadata{"mine": "m"}, got.Metadata); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	headers["tidings-due"] = "events"
	got = decode(&amqp.Delivery{Headers: headers, MessageId: "1", Exchange: "tidings.due", RoutingKey: "a.topic"}, "events")
	if topic := transports.Topic(got); topic != "a.topic" {
		t.Errorf("the topic of a delayed event is %q", topic)
	}
}

func TestHeadersOverAFrameAreRefused(t *testing.T) {
	t.Parallel()
	fits := amqp.Table{"a": strings.Repeat("x", 100_000)}
	if err := checkHeaders(fits, defaultFrameSize); err != nil {
		t.Errorf("100 kB: %v", err)
	}
	for name, headers := range map[string]amqp.Table{
		"one":  {"a": strings.Repeat("x", 300_000)},
		"many": {"a": strings.Repeat("x", 60_000), "b": strings.Repeat("x", 60_000), "c": strings.Repeat("x", 60_000)},
		"key":  {strings.Repeat("k", 256): "x"},
	} {
		if err := checkHeaders(headers, defaultFrameSize); !errors.Is(err, transports.ErrTooLarge) {
			t.Errorf("%s: %v; want ErrTooLarge", name, err)
		}
	}
}

func TestShrinkShortensWhatMattersLeast(t *testing.T) {
	t.Parallel()
	headers := amqp.Table{
		idHeader: strings.Repeat("i", 300), transports.HeaderPoisonStack: strings.Repeat("s", 8000), transports.HeaderPoisonReason: strings.Repeat("r", 4000),
		"long": strings.Repeat("l", 110_000), "longer": strings.Repeat("L", 115_000), "short": "s", "number": int64(1), strings.Repeat("k", 256): "x",
	}
	shrink(headers, defaultFrameSize)
	if err := checkHeaders(headers, defaultFrameSize); err != nil {
		t.Errorf("it still does not fit: %v", err)
	}
	length := func(key string) int { s, _ := headers[key].(string); return len(s) }
	got := map[string]int{}
	for _, key := range []string{idHeader, transports.HeaderPoisonStack, transports.HeaderPoisonReason, "long", "longer", "short"} {
		got[key] = length(key)
	}
	want := map[string]int{idHeader: 300, transports.HeaderPoisonStack: 256, transports.HeaderPoisonReason: 256, "long": 110_000, "longer": 256, "short": 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lengths (-want +got):\n%s", diff)
	}
	if got := headers[truncatedHeader]; got != "tidings_poison_stack tidings_poison_reason longer" {
		t.Errorf("it says that it shortened %q", got)
	}
	small := amqp.Table{"a": strings.Repeat("x", 1000)}
	if shrink(small, defaultFrameSize); len(small) != 1 || len(small["a"].(string)) != 1000 {
		t.Error("it shortened what fits")
	}
}

// The size is reckoned from above: what passes must fit into the frame.
func TestHeaderSizeIsNoLessThanTheFrame(t *testing.T) {
	t.Parallel()
	headers := amqp.Table{"a": "b", "yes": true, strings.Repeat("k", 255): strings.Repeat("v", 1000)}
	size := 0
	for key, value := range headers {
		size += 1 + len(key) + 1 // its length, itself, its type
		if s, ok := value.(string); ok {
			size += 4 + len(s)
		} else {
			size++
		}
	}
	const properties = 8 + 12 + 2 + 4 + 12*256 + 8 + 2 // frame, class and size, flags, table's length, short strings, timestamp, two bytes
	if got := headerSize(headers); got < size+properties {
		t.Errorf("%d bytes are reckoned as %d", size+properties, got)
	}
}

func FuzzMetadataSurvivesTheWire(f *testing.F) {
	f.Add("id", "ce_type", "a", "x-death", "b", []byte("p"))
	f.Add("", "tidings_amqp_CC", "", "content-type", "text", []byte{})
	f.Add("7", "cloudEvents:", "x", "tidings-", "\xff", []byte{0})
	f.Add("7", "ce_time", "2026-02-03T04:05:06+07:00", "correlation_id", "x", []byte{0})
	f.Fuzz(func(t *testing.T, id, key1, value1, key2, value2 string, payload []byte) {
		msg := message.NewMessage(id, payload)
		msg.Metadata = message.Metadata{key1: value1, key2: value2}
		got := decode(delivered(encode(msg), "", "q"), "events")
		want := message.Metadata{key1: value1, key2: value2}
		if c := want["correlation_id"]; c != "" && want[correlationKey] == "" { // is understood
			if _, there := want[correlationKey]; !there {
				want[correlationKey] = c
			}
		}
		if diff := cmp.Diff(want, got.Metadata); diff != "" || got.UUID != id {
			t.Errorf("id %q (-published +received):\n%s", got.UUID, diff)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add("x-death", "v", int64(1), "a.b", []byte("p"))
	f.Fuzz(func(t *testing.T, key, value string, n int64, routingKey string, body []byte) {
		headers := amqp.Table{
			key: value, "n" + key: n, "t" + key: amqp.Table{key: []any{value, n, []byte(value), amqp.Decimal{Scale: uint8(n), Value: int32(n)}}},
			"x-death": []any{amqp.Table{"routing-keys": []any{routingKey}, "reason": value, "time": n}}, "x-delivery-count": n,
		}
		d := &amqp.Delivery{Headers: headers, Exchange: "events", RoutingKey: routingKey, Body: body}
		msg := decode(d, "events")
		encode(msg)
		deliveries(d)
		lastDeath(headers)
	})
}
