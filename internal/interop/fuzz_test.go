package interop_test

import (
	"mime"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/events"
)

// FuzzBothUnderstandTheSame checks that a text that both read says the same to both.
func FuzzBothUnderstandTheSame(f *testing.F) {
	f.Add(`"time":"2018-04-05T17:31:00.123456789+02:00","subject":"s","datacontenttype":"application/json","dataschema":"urn:x","data":{}`)
	f.Add(`"a":5,"yes":true,"data":"x"`)
	f.Add(`"correlationid":"c","data_base64":"AP+/"`)
	f.Add(`"datacontenttype":"text/plain","data":"\u0000\n\ud83d\ude00é"`)
	f.Fuzz(func(t *testing.T, members string) {
		text := []byte("{" + required + "," + members + "}")
		ours, err := fromUs(text)
		if err != nil {
			return
		}
		theirs, err := fromSDK(text)
		if err != nil {
			return
		}
		if ours.Metadata.DataContentType == "application/json" {
			theirs.Metadata.DataContentType = "application/json"
		}
		if diff := cmp.Diff(theirs, ours, cmp.Comparer(time.Time.Equal)); diff != "" {
			t.Errorf("read from %s (-SDK +us):\n%s", text, diff)
		}
	})
}

// FuzzTheSDKReadsWhatWeWrite checks that any event that we write is to the SDK what it
// is to us.
func FuzzTheSDKReadsWhatWeWrite(f *testing.F) {
	f.Add("1", "shop", "order.created", "order/7", "application/json", "urn:x", "c", "tenant", "a", int64(1770000000), int64(7), []byte(`{"a":[1,2.50]}`))
	f.Add(`\"`, "é", "</script>", "\u2028", "text/plain", "", "", "x", "😀", int64(-1), int64(1), []byte("\x00\x1f\"\\\u2029\xef\xbf\xbd"))
	f.Add("1", "s", "t", "", "application/json", "", "", "dataset", "", int64(0), int64(0), []byte("{} "))
	f.Add("1", "s", "t", "", "text/xml; charset=latin1", "", "", "x", "", int64(0), int64(0), []byte("\xff"))
	f.Add("1", "s", "t", "", "", "", "", "x", "y", int64(-62135596800), int64(0), []byte("x"))
	f.Fuzz(func(t *testing.T, id, source, name, subject, contentType, schema, correlation, extension, value string, seconds, nanoseconds int64, data []byte) {
		md := events.Metadata{
			ID: id, Source: source, Type: name, Subject: subject, DataContentType: contentType, DataSchema: schema,
			CorrelationID: correlation, Time: time.Unix(seconds, nanoseconds), Extensions: map[string]string{extension: value},
		}
		text, err := events.AppendJSON(nil, &md, data)
		if err != nil || !speaksSDK(md) {
			return
		}
		want, err := fromUs(text)
		if err != nil {
			t.Fatalf("wrote %s, which we can't read: %v", text, err)
		}
		got, err := fromSDK(text)
		if err != nil {
			t.Fatalf("wrote %s, which the SDK can't read: %v", text, err)
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(time.Time.Equal)); diff != "" {
			t.Errorf("read from %s (-us +SDK):\n%s", text, diff)
		}
	})
}

// speaksSDK reports whether the SDK can hold what md says: it parses URIs, and puts
// those that it parses in a canonical form, wants media types that package mime reads,
// and ignores names and white space that mean nothing to it.
func speaksSDK(md events.Metadata) bool {
	for _, uri := range []string{md.Source, md.DataSchema} {
		if u, err := url.Parse(uri); err != nil || u.String() != uri {
			return false
		}
	}
	if u, _ := url.Parse(md.DataSchema); md.DataSchema != "" && !u.IsAbs() { // parsed above
		return false
	}
	switch mediaType, _, err := mime.ParseMediaType(md.DataContentType); {
	case md.DataContentType == "" || mediaType == "application/json" || mediaType == "text/json":
	case err != nil || strings.HasSuffix(mediaType, "json"):
		return false
	}
	for _, text := range []string{md.ID, md.Type, md.Subject} {
		if text != "" && strings.TrimSpace(text) == "" {
			return false
		}
	}
	return true
}
