package events_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/events"
)

// Every attribute, in one order, and the forms of data that section 3.1.1 of the
// format has.
func TestAppendJSON(t *testing.T) {
	t.Parallel()
	full := events.Metadata{
		ID: `1"\`, Source: "shop", Type: "order.created", Time: time.Date(2026, 2, 3, 4, 5, 6, 7_000_000, time.FixedZone("", 60*60)),
		Subject: "é😀</a>", DataContentType: "application/json", DataSchema: "urn:x",
		CorrelationID: "c", CausationID: "0", PartitionKey: "k", TraceParent: "p", TraceState: "s",
		Extensions:   map[string]string{"b": "true", "a": "", "c": "7"},
		Subscription: "shop.not-sent", Attempt: 3,
	}
	const start = `{"specversion":"1.0","id":"1","source":"s","type":"x"`
	of := func(contentType string) events.Metadata {
		return events.Metadata{ID: "1", Source: "s", Type: "x", DataContentType: contentType}
	}
	typed := func(contentType string) string { return start + `,"datacontenttype":"` + contentType + `"` }
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	tests := []struct {
		name string
		md   events.Metadata
		data []byte
		want string
	}{
		{"everything", full, []byte("{\"n\": 1}\n"), `{"specversion":"1.0","id":"1\"\\","source":"shop","type":"order.created","subject":"é😀</a>",` +
			`"datacontenttype":"application/json","dataschema":"urn:x","correlationid":"c","causationid":"0","partitionkey":"k",` +
			`"traceparent":"p","tracestate":"s","time":"2026-02-03T03:05:06.007Z","a":"","b":"true","c":"7","data":{"n": 1}}`},
		{"no more than there must be", of(""), nil, start + `}`},
		{"no data of a type", of("application/json"), nil, typed("application/json") + `}`},

		{"JSON as it stands", of("application/json"), []byte(` [1.0, "<é>",` + "\n" + ` 9007199254740993] `), typed("application/json") + `,"data":[1.0, "<é>",` + "\n" + ` 9007199254740993]}`},
		{"JSON null", of("text/json"), []byte(`null`), typed("text/json") + `,"data":null}`},
		{"JSON by its suffix", of("a/b+JSON;v=1"), []byte(`"s"`), typed("a/b+JSON;v=1") + `,"data":"s"}`},
		{"JSON as deep as can be read", of("a/json"), []byte(deep(9_999)), typed("a/json") + `,"data":` + deep(9_999) + `}`},
		{"no JSON, though it should be", of("application/json"), []byte(`{}x`), typed("application/json") + `,"data_base64":"e314"}`},
		{"members for the envelope", of("application/json"), []byte(`1,"id":"2"`), typed("application/json") + `,"data_base64":"MSwiaWQiOiIyIg=="}`},
		{"JSON of nothing", of("application/json"), []byte{}, typed("application/json") + `,"data_base64":""}`},
		{"JSON that is not UTF-8", of("application/json"), []byte("\"\xff\""), typed("application/json") + `,"data_base64":"Iv8i"}`},

		{"text", of("text/plain"), []byte("a\"\\\x00\b\t\n\r\x1f\x7fé</"), typed("text/plain") + `,"data":"a\"\\\u0000\u0008\t\n\r\u001f` + "\x7fé</" + `"}`},
		{"text of nothing", of("text/plain"), []byte{}, typed("text/plain") + `,"data":""}`},
		{"text in UTF-8", of("Text/HTML; a=b; CharSet=UTF-8"), []byte("é"), typed("Text/HTML; a=b; CharSet=UTF-8") + `,"data":"é"}`},
		{"text in another charset", of("text/plain; charset=iso-8859-1"), []byte("é"), typed("text/plain; charset=iso-8859-1") + `,"data_base64":"w6k="}`},
		{"text that is not UTF-8", of("text/plain"), []byte("\xe9"), typed("text/plain") + `,"data_base64":"6Q=="}`},
		{"XML", of("application/soap+xml"), []byte("<a/>"), typed("application/soap+xml") + `,"data":"<a/>"}`},
		{"XML that is not text/xml", of("application/xml"), []byte("<a/>"), typed("application/xml") + `,"data":"<a/>"}`},

		{"binary", of("application/protobuf"), []byte("ab"), typed("application/protobuf") + `,"data_base64":"YWI="}`},
		{"binary of nothing", of("application/protobuf"), []byte{}, typed("application/protobuf") + `,"data_base64":""}`},
		{"of no type, even if it is JSON", of(""), []byte(`{}`), start + `,"data_base64":"e30="}`},
		{"of a type that is none", of("json"), []byte(`{}`), typed("json") + `,"data_base64":"e30="}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := events.AppendJSON([]byte("before "), &tt.md, tt.data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff("before "+tt.want, string(got)); diff != "" {
				t.Errorf("written (-want +got):\n%s", diff)
			}
			if !json.Valid(got[len("before "):]) {
				t.Error("it is not JSON")
			}
		})
	}
}

// Nested in the event, JSON is a level deeper than alone, and must be readable still.
func TestAppendJSONOfDataThatIsTooDeepToBeNested(t *testing.T) {
	t.Parallel()
	md := events.Metadata{ID: "1", Source: "s", Type: "x", DataContentType: "application/json"}
	data := strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000)
	text, err := events.AppendJSON(nil, &md, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	_, got, err := events.ParseJSON(text)
	if err != nil || string(got) != data {
		t.Errorf("%d bytes came back and the error %v, want %d bytes", len(got), err, len(data))
	}
}

func TestAppendJSONRefuses(t *testing.T) {
	t.Parallel()
	extensions := make(map[string]string)
	for i := range 10_000 {
		extensions[fmt.Sprint("x", i)] = ""
	}
	for name, tt := range map[string]struct {
		md   events.Metadata
		want string
	}{
		"what is not valid":   {events.Metadata{ID: "1", Source: "s"}, "type is empty"},
		"what can't be read":  {events.Metadata{ID: "1", Source: "s", Type: "x", Extensions: extensions}, "extensions are too many"},
		"a name that escapes": {events.Metadata{ID: "1", Source: "s", Type: "x", Extensions: map[string]string{`a":1,"b`: ""}}, `extension "a\":1,\"b" is not made of lower-case ASCII letters and digits only`},
	} {
		got, err := events.AppendJSON([]byte("before"), &tt.md, []byte("x"))
		if string(got) != "before" {
			t.Errorf("%s: %q came back, want what was there", name, got)
		}
		checkFaults(t, err, tt.want)
	}
}

// FuzzAppendJSON checks that everything that can be sent is written as JSON and read
// back as it was.
func FuzzAppendJSON(f *testing.F) {
	f.Add("1", "shop", "order.created", "order/7", "application/json", "c", "k", "tenant", "a", int64(1770000000), int64(7), []byte(`{"a":[1,2.50]}`))
	f.Add(`\"`, "é", "</script>", "\u2028", "text/plain", "", "", "x", "😀", int64(-1), int64(-1), []byte("\x00\x1f\"\\\xef\xbf\xbd"))
	f.Add("1", "s", "t", "", "application/json", "", "", "dataset", "", int64(0), int64(0), []byte("{}\n"))
	f.Add("1", "s", "t", "", "text/xml; charset=latin1", "", "", "x", "", int64(0), int64(0), []byte("\xff"))
	f.Add("1", "s", "t", "", "", "", "", "data", "", int64(-62135596800), int64(0), []byte(nil))
	f.Fuzz(func(t *testing.T, id, source, name, subject, contentType, correlation, key, extension, value string, seconds, nanoseconds int64, data []byte) {
		md := events.Metadata{
			ID: id, Source: source, Type: name, Subject: subject, DataContentType: contentType,
			CorrelationID: correlation, PartitionKey: key,
			Time: time.Unix(seconds, nanoseconds), Extensions: map[string]string{extension: value},
		}
		text, err := events.AppendJSON(nil, &md, data)
		if (err == nil) != (md.Validate() == nil) {
			t.Fatalf("error %v; that of Validate is %v", err, md.Validate())
		}
		if err == nil {
			checkRoundTrip(t, md, data, text)
		}
	})
}

// checkRoundTrip checks that the text of an event says what the event is.
func checkRoundTrip(t *testing.T, md events.Metadata, data, text []byte) {
	t.Helper()
	if !json.Valid(text) {
		t.Fatalf("wrote %q, which is no JSON", text)
	}
	got, gotData, err := events.ParseJSON(text)
	if err != nil {
		t.Fatalf("wrote %q, which can't be read: %v", text, err)
	}
	if diff := cmp.Diff(md, got); diff != "" {
		t.Errorf("attributes (-written +read):\n%s", diff)
	}
	if (data == nil) != (gotData == nil) || string(trimmed(md, data)) != string(trimmed(md, gotData)) {
		t.Errorf("wrote %q, read %q", data, gotData)
	}
}

// trimmed returns data without the white space around it if it is JSON.
func trimmed(md events.Metadata, data []byte) []byte {
	if json.Valid(data) && strings.Contains(strings.ToLower(md.DataContentType), "json") {
		return []byte(strings.Trim(string(data), " \t\r\n"))
	}
	return data
}

// FuzzParseJSON checks that any text is read or refused, never half of each, and that
// what is read can be written and is then the same.
func FuzzParseJSON(f *testing.F) {
	const start = `{"specversion":"1.0","id":"1","source":"s","type":"x"`
	f.Add([]byte(start + `,"foo":-1,"bar":true,"data":{"a":[1,2.50]}}`))
	f.Add([]byte(start + `,"time":"2026-01-02t03:04:05.6+07:00","subject":null,"datacontenttype":"text/xml","data":"\u003ca/\u003e"}`))
	f.Add([]byte(start + `,"data_base64":"AP8="}`))
	f.Add([]byte(start + `,"data" : null } `))
	f.Add([]byte(`{"specversion":"1.0","id":"\ud83d\ude00","source":"\\\"","\u0074ype":"x"}`))
	f.Add([]byte(`{"specversion":"1.0","id":"1\\","source":"\ud800","type":"x"}}`))
	f.Add([]byte(`[{"specversion":1.0}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		md, data, err := events.ParseJSON(text)
		if err != nil {
			if !cmp.Equal(md, events.Metadata{}) || data != nil || err.Error() == "" || strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("%+v and %q with the error %q", md, data, err)
			}
			return
		}
		checkParsed(t, text, md, data)
		written, err := events.AppendJSON(nil, &md, data)
		if err != nil {
			t.Fatalf("read an event that can't be written: %v", err)
		}
		checkRoundTrip(t, md, data, written)
	})
}

// checkParsed compares an event with what encoding/json makes of its text.
func checkParsed(t *testing.T, text []byte, md events.Metadata, data []byte) {
	t.Helper()
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		t.Fatalf("took a text that is not a JSON object: %v", err)
	}
	for name, got := range map[string]string{"specversion": "1.0", "id": md.ID, "source": md.Source, "type": md.Type} {
		var want string
		if err := json.Unmarshal(members[name], &want); err != nil || got != want {
			t.Errorf("%s is %q, want %s", name, got, members[name])
		}
	}
	if value, ok := members["data"]; ok {
		var s string
		if string(data) != string(value) && (json.Unmarshal(value, &s) != nil || string(data) != s) {
			t.Errorf("data %q, want %s", data, value)
		}
	}
	for name := range members {
		if _, ok := md.Extensions[name]; ok && string(members[name]) == "null" {
			t.Errorf("the attribute %q, which is null, is %q", name, md.Extensions[name])
		}
	}
}

func BenchmarkParseJSON(b *testing.B) {
	md := events.Metadata{
		ID: events.NewID(), Source: "shop", Type: "order.created", Time: time.Unix(1770000000, 0), DataContentType: "application/json",
		CorrelationID: events.NewID(), PartitionKey: "order-7",
	}
	data := []byte(`{"orderId":7,"customerId":42,"totalAmount":"59.7","items":[{"productId":1,"quantity":3,"unitPrice":"19.9"}]}`)
	text, err := events.AppendJSON(nil, &md, data)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := events.ParseJSON(text); err != nil {
			b.Fatal(err)
		}
	}
}
