package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
)

func TestParseEvent(t *testing.T) {
	t.Parallel()
	base := events.Metadata{ID: "1", Source: "/test", Type: "x"}
	with := func(change func(*events.Metadata)) events.Metadata {
		md := base
		change(&md)
		return md
	}
	of := func(contentType string) events.Metadata {
		return with(func(md *events.Metadata) { md.DataContentType = contentType })
	}
	tests := []struct {
		name, members string
		want          events.Metadata
		data          string
	}{
		{"required members only", ``, base, ""},
		{
			"all attributes", `"time":"2026-01-02T03:04:05.6+07:00","subject":"s","datacontenttype":"a/b","dataschema":"urn:x",
			"correlationid":"c","causationid":"d","partitionkey":"k","traceparent":"t","tracestate":"u"`,
			events.Metadata{
				ID: "1", Source: "/test", Type: "x", Time: time.Date(2026, 1, 1, 20, 4, 5, 600e6, time.UTC), Subject: "s", DataContentType: "a/b",
				DataSchema: "urn:x", CorrelationID: "c", CausationID: "d", PartitionKey: "k", TraceParent: "t", TraceState: "u",
			},
			"",
		},
		{"time in lower case", `"time":"2026-01-02t03:04:05z"`, with(func(md *events.Metadata) { md.Time = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }), ""},
		{"null is left out", `"time":null,"subject":null,"foo":null,"data_base64":null`, base, ""},
		{
			"extensions", `"foo":"bar","yes":true,"no":false,"n":-2147483648,"zero":-0,"empty":""`,
			with(func(md *events.Metadata) {
				md.Extensions = map[string]string{"foo": "bar", "yes": "true", "no": "false", "n": "-2147483648", "zero": "0", "empty": ""}
			}), "",
		},
		{"an extension with a field of its own", `"partitionkey":7`, with(func(md *events.Metadata) { md.PartitionKey = "7" }), ""},
		{"data as it stands", `"data" :  { "b" : 1.50,` + "\t" + `"a":[9007199254740993], "a":null}  `, of("application/json"), `{ "b" : 1.50,` + "\t" + `"a":[9007199254740993], "a":null}`},
		{"string that is JSON", `"data":"text"`, of("application/json"), `"text"`},
		{"null is data", `"data":null`, of("application/json"), `null`},
		{"number", `"data":12`, of("application/json"), `12`},
		{"JSON by its suffix", `"datacontenttype":"Application/Vnd.X+JSON ; charset=utf-8","data":"a"`, of("Application/Vnd.X+JSON ; charset=utf-8"), `"a"`},
		{"JSON that is not application", `"datacontenttype":"text/json","data":"a"`, of("text/json"), `"a"`},
		{"text", `"datacontenttype":"text/xml","data":"<a b=\"\u00e9\"/>\n"`, of("text/xml"), `<a b="é"/>` + "\n"},
		{"text with a character of two escapes", `"datacontenttype":"text/plain","data":"\ud83d\ude00 \\ud800 \ufffd"`, of("text/plain"), "😀 \\ud800 \ufffd"},
		{"no text, though it should be", `"datacontenttype":"text/xml","data":{"a":1}`, of("text/xml"), `{"a":1}`},
		{"base64", `"datacontenttype":"image/png","data_base64":"AP8="`, of("image/png"), "\x00\xff"},
		{"base64 of nothing", `"data_base64":""`, base, ""},
		{"base64 without a type", `"data_base64":"e30="`, base, "{}"},
		{"a data type nobody knows", `"datacontenttype":"nonsense","data":"a"`, of("nonsense"), "a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := ` {"specversion":"1.0","id":"1","source":"/test","type":"x"`
			if tt.members != "" {
				text += "," + tt.members
			}
			got, err := parseEvent([]byte(text + "}\r\n"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got.Metadata, cmp.Comparer(time.Time.Equal)); diff != "" {
				t.Errorf("metadata (-want +got):\n%s", diff)
			}
			if string(got.Data) != tt.data {
				t.Errorf("data %q, want %q", got.Data, tt.data)
			}
		})
	}
}

func TestParseEventMalformed(t *testing.T) {
	t.Parallel()
	const start = `{"specversion":"1.0","id":"1","source":"s","type":"x"`
	tests := []struct{ name, text, want string }{
		{"blank", " \t\r\n", "the line is blank"},
		{"text", "hello", "not JSON: invalid character 'h'"},
		{"invalid UTF-8", start + `,"subject":"` + "\xff" + `"}`, "not JSON: not valid UTF-8"},
		{"cut off", start, "not JSON: the line ends too early"},
		{"cut off in a string", `{"specversion":"1.`, "not JSON: the line ends too early"},
		{"comma at the end", start + `,}`, "not JSON: invalid character '}'"},
		{"no comma", `{"specversion":"1.0" "id":"1"}`, "not JSON: invalid character '\"'"},
		{"no value", `{"specversion"}`, "not JSON: expected colon after object key"},
		{"single quotes", `{'id':'1'}`, "not JSON: invalid character '\\''"},
		{"too deep", start + `,"data":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + "}", "not JSON: invalid character '[' exceeded max depth"},
		{"array", "[" + start + "}]", "not a JSON object"},
		{"null", "null", "not a JSON object"},
		{"string", `"x"`, "not a JSON object"},
		{"two", start + "}" + start + "}", "there is more on the line after the JSON object"},
		{"garbage after it", start + "}garbage", "there is more on the line after the JSON object"},
		{"nothing", "{}", "id is empty; source is empty; type is empty; specversion is missing"},
		{"no specversion", `{"id":"1","source":"s","type":"x"}`, "specversion is missing"},
		{"another specversion", `{"specversion":"0.3","id":"1","source":"s","type":"x"}`, `specversion is "0.3" and not "1.0"`},
		{"specversion 1.0.2", `{"specversion":"1.0.2","id":"1","source":"s","type":"x"}`, `specversion is "1.0.2" and not "1.0"`},
		{"specversion as a number", `{"specversion":1.0,"id":"1","source":"s","type":"x"}`, `"specversion" is not a string`},
		{"no id", `{"specversion":"1.0","source":"s","type":"x"}`, "id is empty"},
		{"empty id", `{"specversion":"1.0","id":"","source":"s","type":"x"}`, "id is empty"},
		{"null id", `{"specversion":"1.0","id":null,"source":"s","type":"x"}`, "id is empty"},
		{"id as a number", `{"specversion":"1.0","id":1,"source":"s","type":"x"}`, `"id" is not a string`},
		{"id in capitals", `{"specversion":"1.0","ID":"1","source":"s","type":"x"}`, `id is empty; extension "ID" is not made of`},
		{"no source", `{"specversion":"1.0","id":"1","type":"x"}`, "source is empty"},
		{"no type", `{"specversion":"1.0","id":"1","source":"s"}`, "type is empty"},
		{"control character", `{"specversion":"1.0","id":"a\nb","source":"s","type":"x"}`, "id has the control character U+000A"},
		{"control character in an extension", start + `,"foo":"\u0000"}`, "foo has the control character U+0000"},
		{"half a character", `{"specversion":"1.0","id":"\ud800","source":"s","type":"x"}`, `"id" has half of a surrogate pair`},
		{"the other half", start + `,"foo":"\udc00\ud800"}`, `"foo" has half of a surrogate pair`},
		{"two first halves", start + `,"foo":"\ud800\ud800\udc00"}`, `"foo" has half of a surrogate pair`},
		{"half a character in text", start + `,"datacontenttype":"text/plain","data":"\ud800x"}`, "data has half of a surrogate pair"},
		{"extension in capitals", start + `,"Foo":"x"}`, `extension "Foo" is not made of`},
		{"extension with a hyphen", start + `,"a-b":"x"}`, `extension "a-b" is not made of`},
		{"extension without a name", start + `,"":"x"}`, `extension "" is empty`},
		{"extension that is an object", start + `,"foo":{}}`, `"foo" is neither a string nor a number nor a boolean`},
		{"extension that is a fraction", start + `,"foo":1.5}`, `"foo" is not a whole number of 32 bits`},
		{"extension with an exponent", start + `,"foo":1e3}`, `"foo" is not a whole number of 32 bits`},
		{"extension of more than 32 bits", start + `,"foo":2147483648}`, `"foo" is not a whole number of 32 bits`},
		{"subject as a number", start + `,"subject":1}`, `"subject" is not a string`},
		{"time as a number", start + `,"time":1}`, `"time" is not a string`},
		{"time without a zone", start + `,"time":"2026-01-02T03:04:05"}`, "time is not of RFC 3339"},
		{"time without seconds", start + `,"time":"2026-01-02T03:04Z"}`, "time is not of RFC 3339"},
		{"hour of one digit", start + `,"time":"2026-01-02T3:04:05Z"}`, "time is not of RFC 3339"},
		{"comma in the time", start + `,"time":"2026-01-02T03:04:05,5Z"}`, "time is not of RFC 3339"},
		{"zone of 24 hours", start + `,"time":"2026-01-02T03:04:05+24:00"}`, "time is not of RFC 3339"},
		{"empty time", start + `,"time":""}`, "time is not of RFC 3339"},
		{"year 10000 in UTC", start + `,"time":"9999-12-31T23:59:59-01:00"}`, "time is not in the years 0 to 9999"},
		{"day that is not", start + `,"time":"2026-02-30T03:04:05Z"}`, "time is not of RFC 3339"},
		{"two ids", `{"specversion":"1.0","id":"1","id":"1","source":"s","type":"x"}`, `the member "id" is there twice`},
		{"two ids, one escaped", `{"specversion":"1.0","id":"1","\u0069d":"2","source":"s","type":"x"}`, `the member "id" is there twice`},
		{"data twice", start + `,"data":1,"data":1}`, `the member "data" is there twice`},
		{"both kinds of data", start + `,"data":null,"data_base64":"e30="}`, "both data and data_base64 are there"},
		{"no base64", start + `,"data_base64":"?"}`, "data_base64 is not base64"},
		{"base64 without padding", start + `,"data_base64":"e30"}`, "data_base64 is not base64"},
		{"base64 of URLs", start + `,"data_base64":"-_8="}`, "data_base64 is not base64"},
		{"base64 with a line break", start + `,"data_base64":"e3\n0="}`, "data_base64 is not base64"},
		{"base64 as a number", start + `,"data_base64":1}`, "data_base64 is not base64"},
		{"several faults", `{"specversion":"2.0","id":1,"source":"s","type":"x","time":"now"}`, `"id" is not a string; time is not of RFC 3339; specversion is "2.0" and not "1.0"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			raw, err := parseEvent([]byte(tt.text))
			if err == nil {
				t.Fatalf("no error, but %+v", raw)
			}
			if !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want %q, on one line", err, tt.want)
			}
		})
	}
}

func FuzzParseEvent(f *testing.F) {
	f.Add([]byte(goodLine))
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"s","type":"x","foo":-1,"bar":true,"data":{"a":[1,2.50]}}`))
	f.Add([]byte(`{"specversion":"1.0","id":"\ud83d\ude00","source":"s","type":"x","datacontenttype":"text/xml","data":"\u003ca/\u003e"}`))
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"s","type":"x","data_base64":"AP8="}`))
	f.Add([]byte(`{"specversion":"1.0","id":"1\\","source":"\ud800","type":"x"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		raw, err := parseEvent(text)
		if err != nil {
			if (raw.Metadata.ID != "" || raw.Data != nil) || err.Error() == "" {
				t.Errorf("%+v with the error %q", raw, err)
			}
			return
		}
		checkParsed(t, text, raw)
	})
}

// checkParsed compares an event with what encoding/json makes of its line.
func checkParsed(t *testing.T, text []byte, raw bus.Raw) {
	t.Helper()
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		t.Fatalf("took a line that is not a JSON object: %v", err)
	}
	if err := raw.Metadata.Validate(); err != nil {
		t.Fatalf("took an event that can't be published: %v", err)
	}
	for name, got := range map[string]string{"specversion": "1.0", "id": raw.Metadata.ID, "source": raw.Metadata.Source, "type": raw.Metadata.Type} {
		var want string
		if err := json.Unmarshal(members[name], &want); err != nil || got != want {
			t.Errorf("%s is %q, want %s", name, got, members[name])
		}
	}
	if data, ok := members["data"]; ok && isJSON(raw.Metadata.DataContentType) && string(data) != string(raw.Data) {
		t.Errorf("data %q, want %q", raw.Data, data)
	}
}
