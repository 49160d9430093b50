package events_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/events"
)

// Every attribute, and its metadata key on the wire: a contract with the
// services on the other side.
func TestMetadataEncode(t *testing.T) {
	t.Parallel()
	m := events.Metadata{
		ID: "1", Source: "shop", Type: "order.created",
		Time:    time.Date(2026, 2, 3, 4, 5, 6, 7_000_000, time.FixedZone("", 60*60)),
		Subject: "order/7", DataContentType: "application/json", DataSchema: "https://example.com/order",
		CorrelationID: "c", CausationID: "0", PartitionKey: "order-7",
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", TraceState: "congo=t61",
		Extensions:   map[string]string{"tenant": "a", "note": ""},
		Subscription: "shop.not-sent", Attempt: 3,
	}
	want := map[string]string{
		"ce_source": "shop", "ce_type": "order.created", "ce_time": "2026-02-03T03:05:06.007Z",
		"ce_subject": "order/7", "content-type": "application/json", "ce_dataschema": "https://example.com/order",
		"ce_correlationid": "c", "ce_causationid": "0", "ce_partitionkey": "order-7",
		"ce_traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "ce_tracestate": "congo=t61",
		"ce_tenant": "a", "ce_note": "",
	}
	if diff := cmp.Diff(want, m.Encode()); diff != "" {
		t.Errorf("encoded (-want +got):\n%s", diff)
	}
	back := m
	back.Subscription, back.Attempt = "", 0
	if diff := cmp.Diff(&back, events.DecodeMetadata("1", m.Encode())); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
}

func TestMetadataEncodeLeavesOutWhatIsEmpty(t *testing.T) {
	t.Parallel()
	if got := (&events.Metadata{ID: "1"}).Encode(); len(got) != 0 {
		t.Errorf("encoded = %v, want nothing", got)
	}
}

// A message can come from anyone.
func TestDecodeMetadataTakesWhatItFinds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		wire map[string]string
		want events.Metadata
	}{
		{"nothing", nil, events.Metadata{}},
		{"a plain Watermill message", map[string]string{"correlation_id": "c", "name": "x"}, events.Metadata{}},
		{"no time", map[string]string{"ce_type": "a.b", "ce_time": "yesterday"}, events.Metadata{Type: "a.b"}},
		{"a time with an offset", map[string]string{"ce_time": "2026-02-03T04:05:06+01:00"}, events.Metadata{
			Time: time.Date(2026, 2, 3, 3, 5, 6, 0, time.UTC),
		}},
		{"attributes that are no extensions", map[string]string{
			"ce_specversion": "1.0", "ce_id": "2", "ce_data": "x", "ce_datacontenttype": "text/plain", "ce_source": "s",
		}, events.Metadata{Source: "s"}},
		{"names that are not allowed", map[string]string{"ce_": "x", "ce_Type": "x", "ce_a-b": "x", "CE_b": "x", "ce_ok": "x"}, events.Metadata{
			Extensions: map[string]string{"ok": "x"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.want.ID = "1"
			if diff := cmp.Diff(&tt.want, events.DecodeMetadata("1", tt.wire)); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzMetadata checks that what Validate lets through arrives as it was sent.
func FuzzMetadata(f *testing.F) {
	f.Add("1", "shop", "order.created", "order/7", "application/json", "", "c", "0", "order-7", "", "", "tenant", "a", int64(1770000000), int64(7))
	f.Add("", "", "", "", "", "", "", "", "", "", "", "", "", int64(0), int64(0))
	f.Add("é", "s\x00", "\xff", "\ufffe", "a", "b", "c", "d", "e", "f", "g", "type", "h", int64(-62135596800), int64(0))
	f.Add("1", "s", "t", "", "", "", "", "", "", "", "", "time", "x", int64(253402300800), int64(-1))
	f.Fuzz(func(t *testing.T, id, source, name, subject, contentType, schema, correlation, causation, key, parent, state, extension, value string, seconds, nanoseconds int64) {
		m := events.Metadata{
			ID: id, Source: source, Type: name, Subject: subject, DataContentType: contentType, DataSchema: schema,
			CorrelationID: correlation, CausationID: causation, PartitionKey: key, TraceParent: parent, TraceState: state,
			Time: time.Unix(seconds, nanoseconds), Extensions: map[string]string{extension: value},
		}
		wire := m.Encode()
		got := events.DecodeMetadata(id, wire) // must not panic, whatever it is
		if m.Validate() != nil {
			return
		}
		if diff := cmp.Diff(&m, got); diff != "" {
			t.Errorf("arrived (-sent +received):\n%s", diff)
		}
		for key, text := range wire {
			if key == "" || text == "" && key != events.AttributePrefix+extension {
				t.Errorf("sent %q: %q", key, text)
			}
		}
	})
}

// FuzzDecodeMetadata checks that the metadata of a message from anyone, once it
// is read, can be sent on: reading, writing and reading is reading.
func FuzzDecodeMetadata(f *testing.F) {
	f.Add("ce_source", "shop", "ce_time", "2026-02-03T04:05:06.7Z")
	f.Add("ce_time", "0000-01-01T00:00:00+23:59", "content-type", "")
	f.Add("ce_tenant", "", "ce_data", "x")
	f.Add("ce_", "\xff", "ce_ID", "\n")
	f.Fuzz(func(t *testing.T, key1, value1, key2, value2 string) {
		once := events.DecodeMetadata("1", map[string]string{key1: value1, key2: value2})
		if year := once.Time.UTC().Year(); year < 0 || year > 9999 {
			return // an offset has moved it there; Validate refuses it
		}
		if diff := cmp.Diff(once, events.DecodeMetadata("1", once.Encode())); diff != "" {
			t.Errorf("sent on (-received +sent on):\n%s", diff)
		}
	})
}
