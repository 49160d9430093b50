package interop_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	sdk "github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/events"
)

// event is what both sides can say of an event.
type event struct {
	Metadata events.Metadata
	Data     string
}

// fromSDK reads the event format with the SDK.
func fromSDK(text []byte) (event, error) {
	var e sdk.Event
	if err := json.Unmarshal(text, &e); err != nil {
		return event{}, err
	}
	if err := e.Validate(); err != nil {
		return event{}, err
	}
	return convert(e)
}

func convert(e sdk.Event) (event, error) {
	out := event{
		Metadata: events.Metadata{
			ID: e.ID(), Source: e.Source(), Type: e.Type(), Time: e.Time(), Subject: e.Subject(),
			DataContentType: e.DataContentType(), DataSchema: e.DataSchema(),
		},
		Data: string(e.Data()),
	}
	fields := map[string]*string{
		"correlationid": &out.Metadata.CorrelationID, "causationid": &out.Metadata.CausationID, "partitionkey": &out.Metadata.PartitionKey,
		"traceparent": &out.Metadata.TraceParent, "tracestate": &out.Metadata.TraceState,
	}
	for name, value := range e.Extensions() {
		text, err := types.Format(value)
		if err != nil {
			return event{}, fmt.Errorf("extension %s: %w", name, err)
		}
		if field, ok := fields[name]; ok {
			*field = text
			continue
		}
		if out.Metadata.Extensions == nil {
			out.Metadata.Extensions = make(map[string]string)
		}
		out.Metadata.Extensions[name] = text
	}
	return out, nil
}

// fromUs reads the event format with the library.
func fromUs(text []byte) (event, error) {
	md, data, err := events.ParseJSON(text)
	return event{md, string(data)}, err
}

const required = `"specversion":"1.0","type":"com.example.someevent","source":"/mycontext","id":"A234-1234-1234"`

// Texts that both read, most of them after the examples of the specification.
func TestBothUnderstandTheSame(t *testing.T) {
	t.Parallel()
	for name, members := range map[string]string{
		"no data":              ``,
		"all attributes":       `,"time":"2018-04-05T17:31:00.123456789+02:00","subject":"s","datacontenttype":"application/json","dataschema":"urn:x","data":{}`,
		"extensions":           `,"comexampleextension1":"value","comexampleothervalue":5,"yes":true,"negative":-7`,
		"extensions of ours":   `,"correlationid":"c","causationid":"d","partitionkey":"k","traceparent":"t","tracestate":"u"`,
		"null extension":       `,"unsetextension":null`,
		"JSON object":          `,"datacontenttype":"application/json","data":{"appinfoA":"abc", "appinfoB":[1.50, true, null]}`,
		"JSON string":          `,"datacontenttype":"application/json","data":"I'm just a \"string\""`,
		"JSON number":          `,"datacontenttype":"application/json","data":1.5`,
		"JSON with parameters": `,"datacontenttype":"application/json; charset=utf-8","data":{"a":1}`,
		"JSON before its type": `,"data":{"a":1},"datacontenttype":"application/json"`,
		"XML":                  `,"datacontenttype":"application/xml","data":"<much wow=\"xml\"/>"`,
		"XML before its type":  `,"data":"<much wow=\"xml\"/>","datacontenttype":"application/xml"`,
		"escapes":              `,"subject":"\u00e9\ud83d\ude00\"\\\/","datacontenttype":"text/plain","data":"\u0000\n\ud83d\ude00é"`,
		"base64":               `,"datacontenttype":"application/vnd.apache.thrift.binary","data_base64":"AP+/"`,
		"base64 of JSON":       `,"datacontenttype":"application/json","data_base64":"e30="`,
		"base64 without type":  `,"data_base64":"eyAieHl6IjogMTIzIH0="`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := []byte("{" + required + members + "}")
			want, err := fromSDK(text)
			if err != nil {
				t.Fatalf("the SDK: %v", err)
			}
			got, err := fromUs(text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmp.Comparer(time.Time.Equal)); diff != "" {
				t.Errorf("read (-SDK +us):\n%s", diff)
			}
		})
	}
}

// Section 3.1.2 of the format: data without a content type is JSON, which other formats
// have to say. The SDK leaves the content type empty.
func TestImpliedContentTypeIsSaid(t *testing.T) {
	t.Parallel()
	text := []byte("{" + required + `,"data":"x"}`)
	theirs, err := fromSDK(text)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := fromUs(text)
	if err != nil {
		t.Fatal(err)
	}
	if theirs.Metadata.DataContentType != "" || ours.Metadata.DataContentType != "application/json" {
		t.Errorf("the SDK says %q, we say %q", theirs.Metadata.DataContentType, ours.Metadata.DataContentType)
	}
	if theirs.Data != ours.Data {
		t.Errorf("data of the SDK %q, ours %q", theirs.Data, ours.Data)
	}
}

// Section 3.1.1 of the format: */*+json is JSON as well. The SDK takes it for text.
func TestJSONBySuffix(t *testing.T) {
	t.Parallel()
	text := []byte("{" + required + `,"datacontenttype":"application/vnd.x+json","data":{"a":1}}`)
	if e, err := fromSDK(text); err == nil {
		t.Errorf("the SDK knows the suffix now, so TestBothUnderstandTheSame can have it: %+v", e)
	}
	if e, err := fromUs(text); err != nil || e.Data != `{"a":1}` {
		t.Errorf("we read %q, %v", e.Data, err)
	}
}

// What neither reads.
func TestBothRefuse(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no object":        `[]`,
		"no id":            `{"specversion":"1.0","type":"t","source":"s"}`,
		"empty source":     `{"specversion":"1.0","type":"t","source":"","id":"1"}`,
		"no specversion":   `{"type":"t","source":"s","id":"1"}`,
		"specversion 2.0":  `{"specversion":"2.0","type":"t","source":"s","id":"1"}`,
		"id as a number":   `{"specversion":"1.0","type":"t","source":"s","id":1}`,
		"time not RFC3339": "{" + required + `,"time":"yesterday"}`,
		"no base64":        "{" + required + `,"datacontenttype":"a/b","data_base64":"?"}`,
		"name":             "{" + required + `,"a_b":"x"}`,
		"object extension": "{" + required + `,"a":{}}`,
	} {
		if e, err := fromSDK([]byte(text)); err == nil {
			t.Errorf("%s: the SDK reads %+v", name, e)
		}
		if e, err := fromUs([]byte(text)); err == nil {
			t.Errorf("%s: we read %+v", name, e)
		}
	}
}

// What the SDK lets through and we refuse, on purpose: readers differ in what they make
// of it, or CloudEvents does not allow it.
func TestStricterThanTheSDK(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"the same member twice":      "{" + required + `,"id":"B"}`,
		"both kinds of data":         "{" + required + `,"datacontenttype":"text/plain","data":"a","data_base64":"Yg=="}`,
		"half of a surrogate pair":   "{" + required + `,"subject":"\ud800"}`,
		"control character":          "{" + required + `,"subject":"a\u0000b"}`,
		"more after the object":      "{" + required + `}{}`,
		"an extension in capitals":   "{" + required + `,"Tenant":"a"}`,
		"an extension of a fraction": "{" + required + `,"a":1.5}`,
	} {
		var e sdk.Event
		err := e.UnmarshalJSON([]byte(text))
		if err == nil {
			err = e.Validate()
		}
		if err != nil {
			t.Errorf("%s: the SDK refuses it too: %v", name, err)
		}
		if e, err := fromUs([]byte(text)); err == nil {
			t.Errorf("%s: we read %+v", name, e)
		}
	}
}

// What the SDK writes we read.
func TestWeReadWhatTheSDKWrites(t *testing.T) {
	t.Parallel()
	for name, fill := range map[string]func(*sdk.Event) error{
		"no data": func(*sdk.Event) error { return nil },
		"JSON": func(e *sdk.Event) error {
			return e.SetData("application/json", map[string]any{"a": []int{1, 2}, "b": "<é>"})
		},
		"text":   func(e *sdk.Event) error { return e.SetData("text/plain", "a\"\\\x00é😀\n") },
		"XML":    func(e *sdk.Event) error { return e.SetData("application/xml", []byte("<a/>")) },
		"binary": func(e *sdk.Event) error { return e.SetData("application/octet-stream", []byte{0, 0xff}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := sdk.New()
			e.SetID("1")
			e.SetSource("https://example.com/shop?a=b")
			e.SetType("order.created")
			e.SetSubject("é")
			e.SetDataSchema("urn:x")
			e.SetTime(time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC))
			e.SetExtension("correlationid", "c")
			e.SetExtension("count", 7)
			e.SetExtension("yes", true)
			e.SetExtension("bytes", []byte{0xff})
			if err := fill(&e); err != nil {
				t.Fatal(err)
			}
			want, err := convert(e)
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			got, err := fromUs(text)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if diff := cmp.Diff(want, got, cmp.Comparer(time.Time.Equal)); diff != "" {
				t.Errorf("read from %s (-SDK +us):\n%s", text, diff)
			}
		})
	}
}
