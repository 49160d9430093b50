package events_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/gotidings/tidings/events"
)

func TestMetadataValidate(t *testing.T) {
	t.Parallel()
	const badName = "is not made of lower-case ASCII letters and digits only"
	const ownField = "is the name of a CloudEvents attribute with a field of its own"
	extension := func(name, value string) func(*events.Metadata) {
		return func(m *events.Metadata) { m.Extensions = map[string]string{name: value} }
	}
	tests := []struct {
		name   string
		change func(*events.Metadata)
		want   []string
	}{
		{"good", func(*events.Metadata) {}, nil},
		{"no id", func(m *events.Metadata) { m.ID = "" }, []string{"id is empty"}},
		{"no source", func(m *events.Metadata) { m.Source = "" }, []string{"source is empty"}},
		{"no type", func(m *events.Metadata) { m.Type = "" }, []string{"type is empty"}},
		{"nothing", func(m *events.Metadata) { *m = events.Metadata{} }, []string{"id is empty", "source is empty", "type is empty"}},
		{"id of any text", func(m *events.Metadata) { m.ID = "order 7, again / 注文 🎉 ~" }, nil},

		{"first year", func(m *events.Metadata) { m.Time = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC) }, nil},
		{"last year", func(m *events.Metadata) { m.Time = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }, nil},
		{"before the years", func(m *events.Metadata) { m.Time = time.Date(-1, 12, 31, 0, 0, 0, 0, time.UTC) }, []string{"time is not in the years 0 to 9999"}},
		{"after the years, in UTC", func(m *events.Metadata) {
			m.Time = time.Date(9999, 12, 31, 23, 0, 0, 0, time.FixedZone("", -2*60*60))
		}, []string{"time is not in the years 0 to 9999"}},

		{"extension", extension("tenant7", "any text: é"), nil},
		{"extension empty", extension("tenant", ""), nil},
		{"extension without a name", extension("", "x"), []string{`extension "" is empty`}},
		{"extension in upper case", extension("Tenant", "x"), []string{`extension "Tenant" ` + badName}},
		{"extension with an underscore", extension("data_base64", "x"), []string{`extension "data_base64" ` + badName}},
		{"extension beyond ASCII", extension("ténant", "x"), []string{`extension "ténant" ` + badName}},
		{"extension specversion", extension("specversion", "1.0"), []string{`extension "specversion" ` + ownField}},
		{"extension id", extension("id", "x"), []string{`extension "id" ` + ownField}},
		{"extension time", extension("time", "x"), []string{`extension "time" ` + ownField}},
		{"extension data", extension("data", "x"), []string{`extension "data" ` + ownField}},
		{"extension type", extension("type", "x"), []string{`extension "type" ` + ownField}},
		{"extension correlationid", extension("correlationid", "x"), []string{`extension "correlationid" ` + ownField}},
		{"extension with a control character", extension("tenant", "a\tb"), []string{"tenant has the control character U+0009 at byte 1"}},
		{"several extensions, in one order", func(m *events.Metadata) {
			m.Extensions = map[string]string{"C": "", "b": "\n", "a": "\n", "D": "", "E": ""}
		}, []string{
			"a has the control character U+000A at byte 0", "b has the control character U+000A at byte 0",
			`extension "C" ` + badName, `extension "D" ` + badName, `extension "E" ` + badName,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := events.Metadata{ID: "1", Source: "shop", Type: "order.created"}
			tt.change(&m)
			checkFaults(t, m.Validate(), tt.want...)
		})
	}
}

// The characters that section "Type System" of CloudEvents 1.0 forbids, and the
// neighbours that it allows.
func TestMetadataValidateText(t *testing.T) {
	t.Parallel()
	tests := []struct{ text, problem string }{
		{"plain ~ ASCII", ""},
		{" ", ""},
		{"\u00a0", ""},
		{"\ufffd", ""}, // a replacement character that was sent as one
		{"\ufdcf\ufdf0", ""},
		{"\U0001fffd\U0010fffd", ""},
		{"ab\x00", "has the control character U+0000 at byte 2"},
		{"\x1f", "has the control character U+001F at byte 0"},
		{"é\n", "has the control character U+000A at byte 2"},
		{"\x7f", "has the control character U+007F at byte 0"},
		{"\u0080", "has the control character U+0080 at byte 0"},
		{"\u009f", "has the control character U+009F at byte 0"},
		{"\ufdd0", "has the noncharacter U+FDD0 at byte 0"},
		{"\ufdef", "has the noncharacter U+FDEF at byte 0"},
		{"\ufffe", "has the noncharacter U+FFFE at byte 0"},
		{"\uffff", "has the noncharacter U+FFFF at byte 0"},
		{"a\U0001fffe", "has the noncharacter U+1FFFE at byte 1"},
		{"\U0010ffff", "has the noncharacter U+10FFFF at byte 0"},
		{"a\xff", "is not valid UTF-8 at byte 1"},
		{"\xc3", "is not valid UTF-8 at byte 0"},
		{"\xed\xa0\x80", "is not valid UTF-8 at byte 0"}, // a surrogate
		{"\ufffd\xfe", "is not valid UTF-8 at byte 3"},
	}
	fields := []struct {
		name string
		set  func(*events.Metadata, string)
	}{
		{"id", func(m *events.Metadata, s string) { m.ID = s }},
		{"source", func(m *events.Metadata, s string) { m.Source = s }},
		{"type", func(m *events.Metadata, s string) { m.Type = s }},
		{"subject", func(m *events.Metadata, s string) { m.Subject = s }},
		{"datacontenttype", func(m *events.Metadata, s string) { m.DataContentType = s }},
		{"dataschema", func(m *events.Metadata, s string) { m.DataSchema = s }},
		{"correlationid", func(m *events.Metadata, s string) { m.CorrelationID = s }},
		{"causationid", func(m *events.Metadata, s string) { m.CausationID = s }},
		{"partitionkey", func(m *events.Metadata, s string) { m.PartitionKey = s }},
		{"traceparent", func(m *events.Metadata, s string) { m.TraceParent = s }},
		{"tracestate", func(m *events.Metadata, s string) { m.TraceState = s }},
		{"tenant", func(m *events.Metadata, s string) { m.Extensions = map[string]string{"tenant": s} }},
	}
	for _, tt := range tests {
		for _, field := range fields {
			m := events.Metadata{ID: "1", Source: "shop", Type: "order.created"}
			field.set(&m, tt.text)
			var want []string
			if tt.problem != "" {
				want = []string{field.name + " " + tt.problem}
			}
			checkFaults(t, m.Validate(), want...)
		}
	}
}

// Publish validates every event, so a good one must not cost it an allocation.
func TestMetadataValidateAllocatesNothing(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts those of other goroutines too
	m := events.Metadata{ID: "1", Source: "shop", Type: "order.created", Time: time.Unix(1, 0), Extensions: map[string]string{"tenant": "a"}}
	allocations := testing.AllocsPerRun(100, func() {
		if err := m.Validate(); err != nil {
			t.Error(err)
		}
	})
	if allocations != 0 {
		t.Errorf("%.0f allocations, want none", allocations)
	}
}

func TestMetadataFrom(t *testing.T) {
	t.Parallel()
	want := events.Metadata{
		ID: "1", Source: "shop", Type: "order.created", Extensions: map[string]string{"tenant": "a"},
		Subscription: "shop.reserve-inventory", Attempt: 2,
	}
	ctx := events.WithMetadata(t.Context(), &want)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	got, ok := events.MetadataFrom(ctx)
	if diff := cmp.Diff(want, got); !ok || diff != "" {
		t.Errorf("MetadataFrom = %t, (-want +got):\n%s", ok, diff)
	}
	got.ID = "changed" // a copy, so this has no effect on the next reader
	if again, _ := events.MetadataFrom(ctx); again.ID != "1" {
		t.Errorf("id = %q after a reader changed its copy", again.ID)
	}
}

func TestMetadataFromOutsideOfAHandler(t *testing.T) {
	t.Parallel()
	for name, ctx := range map[string]context.Context{
		"no metadata":  t.Context(),
		"nil metadata": events.WithMetadata(t.Context(), nil),
	} {
		if got, ok := events.MetadataFrom(ctx); ok || !cmp.Equal(got, events.Metadata{}) {
			t.Errorf("%s: MetadataFrom = %+v, %t", name, got, ok)
		}
	}
}

func TestNewID(t *testing.T) {
	t.Parallel()
	previous := ""
	for range 1000 {
		id := events.NewID()
		if parsed, err := uuid.Parse(id); err != nil || parsed.Version() != 7 || parsed.Variant() != uuid.RFC4122 {
			t.Fatalf("NewID() = %q, want a UUIDv7", id)
		}
		if id <= previous && previous != "" {
			t.Fatalf("NewID() = %q after %q, want it to sort behind", id, previous)
		}
		previous = id
	}
}
