package events_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/events"
)

func TestParseJSON(t *testing.T) {
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
	const none = "no data"
	tests := []struct {
		name, members string
		want          events.Metadata
		data          string
	}{
		{"required members only", ``, base, none},
		{
			"all attributes", `"time":"2026-01-02T03:04:05.6+07:00","subject":"s","datacontenttype":"a/b","dataschema":"urn:x",
			"correlationid":"c","causationid":"d","partitionkey":"k","traceparent":"t","tracestate":"u"`,
			events.Metadata{
				ID: "1", Source: "/test", Type: "x", Time: time.Date(2026, 1, 1, 20, 4, 5, 600e6, time.UTC), Subject: "s", DataContentType: "a/b",
				DataSchema: "urn:x", CorrelationID: "c", CausationID: "d", PartitionKey: "k", TraceParent: "t", TraceState: "u",
			},
			none,
		},
		{"time in lower case", `"time":"2026-01-02t03:04:05z"`, with(func(md *events.Metadata) { md.Time = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }), none},
		{"time of more digits than nanoseconds", `"time":"2026-01-02T03:04:05.1234567899Z"`, with(func(md *events.Metadata) {
			md.Time = time.Date(2026, 1, 2, 3, 4, 5, 123456789, time.UTC)
		}), none},
		{"null is left out", `"time":null,"subject":null,"foo":null,"data_base64":null`, base, none},
		{
			"extensions", `"foo":"bar","yes":true,"no":false,"n":-2147483648,"zero":-0,"empty":""`,
			with(func(md *events.Metadata) {
				md.Extensions = map[string]string{"foo": "bar", "yes": "true", "no": "false", "n": "-2147483648", "zero": "0", "empty": ""}
			}), none,
		},
		{"a name of an attribute elsewhere", `"dataencoding":"x","subjects":"y"`, with(func(md *events.Metadata) {
			md.Extensions = map[string]string{"dataencoding": "x", "subjects": "y"}
		}), none},
		{"an extension with a field of its own", `"partitionkey":7`, with(func(md *events.Metadata) { md.PartitionKey = "7" }), none},
		{"an escaped name", `"\u0073ub\u006Aect":"s"`, with(func(md *events.Metadata) { md.Subject = "s" }), none},
		{"escapes", `"subject":"\"\\\/\u00e9 é \ud83d\ude00"`, with(func(md *events.Metadata) { md.Subject = `"\/é é 😀` }), none},
		{"brackets and quotes in a string", `"subject":"}],\\\"{["`, with(func(md *events.Metadata) { md.Subject = `}],\"{[` }), none},

		{"data as it stands", `"data" :  { "b" : 1.50,` + "\t" + `"a":[9007199254740993], "a":"}\"\\"}  `, of("application/json"), `{ "b" : 1.50,` + "\t" + `"a":[9007199254740993], "a":"}\"\\"}`},
		{"string that is JSON", `"data":"text"`, of("application/json"), `"text"`},
		{"string with half a surrogate pair, for its reader to judge", `"data":"\ud800"`, of("application/json"), `"\ud800"`},
		{"null is data", `"data":null`, of("application/json"), `null`},
		{"number", "\"data\":12\n", of("application/json"), `12`},
		{"array", `"data":[[],{"a":"]"}]`, of("application/json"), `[[],{"a":"]"}]`},
		{"JSON by its suffix", `"datacontenttype":"Application/Vnd.X+JSON ; charset=utf-8","data":"a"`, of("Application/Vnd.X+JSON ; charset=utf-8"), `"a"`},
		{"JSON that is not application", `"datacontenttype":"text/json","data":"a"`, of("text/json"), `"a"`},
		{"text", `"datacontenttype":"text/xml","data":"<a b=\"\u00e9\"/>\n"`, of("text/xml"), `<a b="é"/>` + "\n"},
		{"text with a character of two escapes", `"datacontenttype":"text/plain","data":"\ud83d\ude00 \\ud800 \ufffd"`, of("text/plain"), "😀 \\ud800 \ufffd"},
		{"data before its type", `"data":"a","datacontenttype":"text/plain"`, of("text/plain"), `a`},
		{"an object where text is expected", `"datacontenttype":"text/xml","data":{"a":1}`, of("text/xml"), `{"a":1}`},
		{"null where text is expected", `"datacontenttype":"application/protobuf","data":null`, of("application/protobuf"), `null`},
		{"empty text", `"datacontenttype":"text/plain","data":""`, of("text/plain"), ""},
		{"base64", `"datacontenttype":"image/png","data_base64":"AP8="`, of("image/png"), "\x00\xff"},
		{"base64 with escapes", `"data_base64":"\/\u002B8="`, base, "\xff\xef"},
		{"base64 of nothing", `"data_base64":""`, base, ""},
		{"base64 without a type", `"data_base64":"e30="`, base, "{}"},
		{"a data type nobody knows", `"datacontenttype":"nonsense","data":"a"`, of("nonsense"), "a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := "\r\n {\t\"specversion\":\"1.0\",\"id\":\"1\" , \"source\":\"/test\",\"type\":\"x\""
			if tt.members != "" {
				text += "," + tt.members
			}
			md, data, err := events.ParseJSON([]byte(text + "}\r\n"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, md); diff != "" {
				t.Errorf("metadata (-want +got):\n%s", diff)
			}
			if string(data) != tt.data && (data != nil || tt.data != none) {
				t.Errorf("data %q, want %q", data, tt.data)
			}
		})
	}
}

// What is not an event says so, on one line.
func TestParseJSONMalformed(t *testing.T) {
	t.Parallel()
	const start = `{"specversion":"1.0","id":"1","source":"s","type":"x"`
	many := func(n int) string {
		var b strings.Builder
		b.WriteString(start)
		for i := range n {
			fmt.Fprintf(&b, `,"x%d":1.5`, i)
		}
		return b.String() + "}"
	}
	tests := []struct{ name, text, want string }{
		{"nothing", "", "there is nothing but white space"},
		{"blank", " \t\r\n", "there is nothing but white space"},
		{"text", "hello", "not JSON: invalid character 'h'"},
		{"invalid UTF-8", start + `,"subject":"` + "\xff" + `"}`, "not JSON: not valid UTF-8"},
		{"cut off", start, "not JSON: unexpected end of JSON input"},
		{"cut off in a string", `{"specversion":"1.`, "not JSON: unexpected end of JSON input"},
		{"comma at the end", start + `,}`, "not JSON: invalid character '}'"},
		{"no comma", `{"specversion":"1.0" "id":"1"}`, "not JSON: invalid character '\"'"},
		{"no value", `{"specversion"}`, "not JSON: invalid character '}' after object key"},
		{"single quotes", `{'id':'1'}`, "not JSON: invalid character '\\''"},
		{"too deep", start + `,"data":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + "}", "not JSON: invalid character '[' exceeded max depth"},
		{"array", "[" + start + "}]", "not a JSON object"},
		{"null", "null", "not a JSON object"},
		{"string", `"x"`, "not a JSON object"},
		{"two", start + "}" + start + "}", "not JSON: invalid character '{' after top-level value"},
		{"garbage after it", start + "}garbage", "not JSON: invalid character 'g' after top-level value"},
		{"no members", " { } ", "id is empty; source is empty; type is empty; specversion is missing"},

		{"no specversion", `{"id":"1","source":"s","type":"x"}`, "specversion is missing"},
		{"specversion null", `{"specversion":null,"id":"1","source":"s","type":"x"}`, "specversion is missing"},
		{"another specversion", `{"specversion":"0.3","id":"1","source":"s","type":"x"}`, `specversion is "0.3" and not "1.0"`},
		{"specversion 1.0.2", `{"specversion":"1.0.2","id":"1","source":"s","type":"x"}`, `specversion is "1.0.2" and not "1.0"`},
		{"specversion as a number", `{"specversion":1.0,"id":"1","source":"s","type":"x"}`, `"specversion" is not a string`},
		{"no id", `{"specversion":"1.0","source":"s","type":"x"}`, "id is empty"},
		{"empty id", `{"specversion":"1.0","id":"","source":"s","type":"x"}`, "id is empty"},
		{"null id", `{"specversion":"1.0","id":null,"source":"s","type":"x"}`, "id is empty"},
		{"id as a number", `{"specversion":"1.0","id":1,"source":"s","type":"x"}`, `"id" is not a string`},
		{"id in capitals", `{"specversion":"1.0","ID":"1","source":"s","type":"x"}`, `id is empty; extension "ID" is not made of`},
		{"no source", `{"specversion":"1.0","id":"1","type":"x"}`, "source is empty"},
		{"source as a boolean", `{"specversion":"1.0","id":"1","source":true,"type":"x"}`, `"source" is not a string`},
		{"no type", `{"specversion":"1.0","id":"1","source":"s"}`, "type is empty"},
		{"type as an array", `{"specversion":"1.0","id":"1","source":"s","type":["x"]}`, `"type" is not a string`},
		{"control character", `{"specversion":"1.0","id":"a\nb","source":"s","type":"x"}`, "id has the control character U+000A"},
		{"half a character", `{"specversion":"1.0","id":"\ud800","source":"s","type":"x"}`, `"id" has half of a surrogate pair`},
		{"subject as a number", start + `,"subject":1}`, `"subject" is not a string`},
		{"datacontenttype as a number", start + `,"datacontenttype":1}`, `"datacontenttype" is not a string`},
		{"dataschema as a number", start + `,"dataschema":1}`, `"dataschema" is not a string`},

		{"control character in an extension", start + `,"foo":"\u0000"}`, "foo has the control character U+0000"},
		{"the other half", start + `,"foo":"\udc00\ud800"}`, `"foo" has half of a surrogate pair`},
		{"two first halves", start + `,"foo":"\ud800\ud800\udc00"}`, `"foo" has half of a surrogate pair`},
		{"half and another escape", start + `,"foo":"\ud800\n"}`, `"foo" has half of a surrogate pair`},
		{"extension in capitals", start + `,"Foo":"x"}`, `extension "Foo" is not made of`},
		{"extension with a hyphen", start + `,"a-b":"x"}`, `extension "a-b" is not made of`},
		{"extension without a name", start + `,"":"x"}`, `extension "" is empty`},
		{"extension with a long name", start + `,"` + strings.Repeat("X", 1<<20) + `":"x"}`, `extension "` + strings.Repeat("X", 40) + `" is not made of`},
		{"control character in one with a long name", start + `,"` + strings.Repeat("x", 1<<20) + `":"\n"}`, strings.Repeat("x", 40) + " has the control character"},
		{"extension that is an object", start + `,"foo":{}}`, `"foo" is neither a string nor a number nor a boolean`},
		{"extension that is a fraction", start + `,"foo":1.5}`, `"foo" is not a whole number of 32 bits`},
		{"extension with an exponent", start + `,"foo":1e3}`, `"foo" is not a whole number of 32 bits`},
		{"extension of more than 32 bits", start + `,"foo":2147483648}`, `"foo" is not a whole number of 32 bits`},
		{"as many members as there may be", many(9_996), `"x0" is not a whole number of 32 bits; "x1" is not`},
		{"more members than that", many(9_997), "it has more than 10000 members"},

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
		{"null twice", start + `,"foo":null,"foo":null}`, `the member "foo" is there twice`},

		{"both kinds of data", start + `,"data":null,"data_base64":"e30="}`, "both data and data_base64 are there"},
		{"no base64", start + `,"data_base64":"?"}`, "data_base64 is not base64"},
		{"base64 without padding", start + `,"data_base64":"e30"}`, "data_base64 is not base64"},
		{"base64 of URLs", start + `,"data_base64":"-_8="}`, "data_base64 is not base64"},
		{"base64 with a line break", start + `,"data_base64":"e3\n0="}`, "data_base64 is not base64"},
		{"base64 as a number", start + `,"data_base64":1}`, "data_base64 is not base64"},
		{"half a character in text", start + `,"datacontenttype":"text/plain","data":"\ud800x"}`, "data has half of a surrogate pair"},

		{"several faults", `{"specversion":"2.0","id":1,"source":"s","type":"x","time":"now"}`, `"id" is not a string; time is not of RFC 3339; specversion is "2.0" and not "1.0"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			md, data, err := events.ParseJSON([]byte(tt.text))
			if !cmp.Equal(md, events.Metadata{}) || data != nil {
				t.Errorf("there is an event in spite of the error: %+v, %q", md, data)
			}
			if format, ok := errors.AsType[*events.FormatError](err); !ok || !strings.HasPrefix(format.Problem, tt.want) {
				t.Errorf("error %q, want a FormatError: %q", err, tt.want)
			}
			if err != nil && (strings.Contains(err.Error(), "\n") || len(err.Error()) > 2000) {
				t.Errorf("error of %d bytes %.100q…, want a line to read", len(err.Error()), err)
			}
		})
	}
}

func TestParseJSONSaysHowManyFaultsItLeavesOut(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	text.WriteString(`{"specversion":"1.0","id":"1","source":"s","type":"x"`)
	for i := range 25 {
		fmt.Fprintf(&text, `,"E%02d":""`, i)
	}
	_, _, err := events.ParseJSON([]byte(text.String() + "}"))
	if err == nil || !strings.HasSuffix(err.Error(), `digits only; and 5 more`) || strings.Count(err.Error(), ";") != 20 {
		t.Errorf("error %v, want one with 20 faults and the number of the others", err)
	}
}

// The caller may reuse its buffer.
func TestParseJSONKeepsNoPartOfTheText(t *testing.T) {
	t.Parallel()
	text := []byte(`{"specversion":"1.0","id":"1","source":"s","type":"x","subject":"abc","data":{"a":"b"}}`)
	md, data, err := events.ParseJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	clear(text)
	if md.Subject != "abc" || string(data) != `{"a":"b"}` {
		t.Errorf("subject %q and data %q after the text was overwritten", md.Subject, data)
	}
}
