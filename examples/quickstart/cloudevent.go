package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
)

// parseEvent reads an event in the JSON format of CloudEvents 1.0.2,
// https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md.
// It keeps no part of text. The error says on one line why text is no CloudEvent.
func parseEvent(text []byte) (bus.Raw, error) {
	members, err := splitObject(text)
	if err != nil {
		return bus.Raw{}, err
	}
	var faults faultList
	md := attributes(members, &faults)
	data := eventData(members, &md, &faults)
	if err := faults.err(); err != nil {
		return bus.Raw{}, err
	}
	return bus.Raw{Metadata: md, Data: data}, nil
}

// faultList collects what is wrong with an event, to tell it on one line.
type faultList []string

func (f *faultList) add(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

func (f *faultList) err() error {
	if len(*f) == 0 {
		return nil
	}
	return errors.New(strings.Join(*f, "; "))
}

// member is a member of the JSON object that is the event.
type member struct {
	name  string
	value json.RawMessage
}

// splitObject returns the members of a JSON object, which must be all that there is.
// A name that is there twice is a fault: readers differ in which value they take
// (RFC 8259, section 4), so that such an object says nothing certain.
func splitObject(text []byte) ([]member, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("the line is blank")
	}
	if !utf8.Valid(text) {
		return nil, errors.New("not JSON: not valid UTF-8") // json would put in replacement characters
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	switch begin, err := dec.Token(); {
	case err != nil:
		return nil, notJSON(err)
	case begin != json.Delim('{'):
		return nil, errors.New("not a JSON object")
	}
	var members []member
	seen := make(map[string]bool)
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, notJSON(err)
		}
		m := member{name: name.(string)} // the decoder has checked that
		if err := dec.Decode(&m.value); err != nil {
			return nil, notJSON(err)
		}
		if seen[m.name] {
			return nil, fmt.Errorf("the member %.40q is there twice", m.name)
		}
		seen[m.name] = true
		members = append(members, m)
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return nil, notJSON(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more on the line after the JSON object")
	}
	return members, nil
}

func notJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("not JSON: the line ends too early")
	}
	return fmt.Errorf("not JSON: %w", err)
}

// attributes reads the context attributes. A null counts as left out.
func attributes(members []member, faults *faultList) events.Metadata {
	var md events.Metadata
	var specversion string
	hasVersion := false // of a wrong type, which is one fault and not two
	texts := map[string]*string{
		"specversion": &specversion, "id": &md.ID, "source": &md.Source, "type": &md.Type,
		"subject": &md.Subject, "datacontenttype": &md.DataContentType, "dataschema": &md.DataSchema,
	}
	extensions := map[string]*string{
		"correlationid": &md.CorrelationID, "causationid": &md.CausationID, "partitionkey": &md.PartitionKey,
		"traceparent": &md.TraceParent, "tracestate": &md.TraceState,
	}
	for _, m := range members {
		if isNull(m.value) || m.name == "data" || m.name == "data_base64" {
			continue
		}
		field, isText := texts[m.name]
		text, problem := attributeText(m.value, isText || m.name == "time")
		if problem != "" {
			faults.add("%.40q %s", m.name, problem)
			hasVersion = hasVersion || m.name == "specversion"
			continue
		}
		switch extension, known := extensions[m.name]; {
		case isText:
			*field = text
		case m.name == "time":
			var err error
			if md.Time, err = parseTime(text); err != nil {
				faults.add("time is not of RFC 3339")
			}
		case known:
			*extension = text
		default:
			if md.Extensions == nil {
				md.Extensions = make(map[string]string)
			}
			md.Extensions[m.name] = text
		}
	}
	if err := md.Validate(); err != nil && len(*faults) == 0 { // an id that is a number is not empty as well
		faults.add("%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	switch {
	case specversion == events.SpecVersion || hasVersion:
	case specversion == "":
		faults.add("specversion is missing")
	default:
		faults.add("specversion is %.40q and not %q", specversion, events.SpecVersion)
	}
	return md
}

// rfc3339 is the syntax of section 5.6. Package time reads more than that, such as an
// hour of one digit, and less: it does not take t and z.
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

func parseTime(text string) (time.Time, error) {
	text = strings.ToUpper(text)
	if !rfc3339.MatchString(text) {
		return time.Time{}, errors.New("not RFC 3339")
	}
	return time.Parse(time.RFC3339, text)
}

// attributeText returns the value of an attribute in its canonical text form, or what
// is wrong with it. Extensions can be strings, booleans and whole numbers of 32 bits
// (the CloudEvents specification, section "Type System"), the others strings only.
func attributeText(value json.RawMessage, stringOnly bool) (text, problem string) {
	switch c := value[0]; {
	case c == '"':
		return stringText(value)
	case stringOnly:
		return "", "is not a string"
	case c == 't' || c == 'f':
		return string(value), ""
	case c == '-' || c >= '0' && c <= '9':
		n, err := strconv.ParseInt(string(value), 10, 32)
		if err != nil {
			return "", "is not a whole number of 32 bits"
		}
		return strconv.FormatInt(n, 10), ""
	default:
		return "", "is neither a string nor a number nor a boolean"
	}
}

// stringText returns what a JSON string says, or what is wrong with it.
func stringText(value json.RawMessage) (text, problem string) {
	if err := json.Unmarshal(value, &text); err != nil {
		return "", "is not a string"
	}
	if hasLoneSurrogate(value) {
		return "", "has half of a surrogate pair"
	}
	return text, ""
}

// hasLoneSurrogate reports whether a valid JSON string has half of a surrogate pair as
// an escape. That is no character; json puts U+FFFD in its place, and so would make one
// of two ids that differ.
func hasLoneSurrogate(value []byte) bool {
	for i := 0; i < len(value); {
		switch {
		case value[i] != '\\':
			i++
		case value[i+1] != 'u':
			i += 2
		default:
			unit := codeUnit(value[i:])
			i += 6
			if !utf16.IsSurrogate(unit) {
				continue
			}
			if value[i] != '\\' || value[i+1] != 'u' || utf16.DecodeRune(unit, codeUnit(value[i:])) == utf8.RuneError {
				return true
			}
			i += 6
		}
	}
	return false
}

// codeUnit reads the escape \uXXXX that a valid JSON string goes on with.
func codeUnit(escape []byte) rune {
	unit, _ := strconv.ParseUint(string(escape[2:6]), 16, 16) // four hexadecimal digits: the string is valid
	return rune(unit)
}

func isNull(value json.RawMessage) bool { return string(value) == "null" }

// eventData returns the bytes of the data. Section 3.1.2 of the JSON format: data of
// a JSON content type is the JSON value itself, down to its white space; of another
// one, a string holds the text that is the data.
func eventData(members []member, md *events.Metadata, faults *faultList) []byte {
	var data, encoded json.RawMessage
	for _, m := range members {
		switch {
		case m.name == "data":
			data = m.value // null is a value here
		case m.name == "data_base64" && !isNull(m.value):
			encoded = m.value
		}
	}
	switch {
	case data != nil && encoded != nil:
		faults.add("both data and data_base64 are there")
	case encoded != nil:
		text, problem := stringText(encoded)
		// RFC 4648, section 3.3: line breaks are a fault, which the package ignores.
		decoded, err := base64.StdEncoding.DecodeString(text)
		if problem != "" || err != nil || strings.ContainsAny(text, "\r\n") {
			faults.add("data_base64 is not base64")
		}
		return decoded
	case data == nil:
	case md.DataContentType == "":
		md.DataContentType = "application/json" // implied in this format, and said in others
	case isJSON(md.DataContentType) || data[0] != '"':
	default:
		text, problem := stringText(data)
		if problem != "" {
			faults.add("data %s", problem)
		}
		return []byte(text)
	}
	return data
}

// isJSON reports whether a content type is */json or */*+json, section 3.1.1.
func isJSON(contentType string) bool {
	mediaType, _, _ := strings.Cut(contentType, ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	return strings.HasSuffix(mediaType, "/json") || strings.HasSuffix(mediaType, "+json")
}
