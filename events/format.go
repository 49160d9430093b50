package events

import (
	"fmt"
	"strings"
)

// JSONFormat is the media type of an event in the JSON event format of
// CloudEvents 1.0.2, attributes and data in one JSON object:
// https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md.
// [AppendJSON] writes it and [ParseJSON] reads it.
//
// It is the content type of messages in structured mode. In binary mode the attributes
// are the message's metadata, and the payload is the data.
const JSONFormat = "application/cloudevents+json"

// maxMembers is the most members that an event in the JSON format can have. An event
// of 64 KiB, which every CloudEvents intermediary has to forward (section "Size
// Limits" of the specification), has room for fewer. Without a bound a payload of a few
// megabytes would become millions of attributes, each with its place in a map.
const maxMembers = 10_000

// FormatError says why a text is not an event in the JSON format.
type FormatError struct {
	Problem string // on one line; several problems are separated by semicolons
}

func (e *FormatError) Error() string { return e.Problem }

// problems collects what is wrong with a text, to tell it on one line.
type problems []string

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }

func (p problems) err() error {
	switch {
	case len(p) == 0:
		return nil
	case len(p) > maxFaults:
		more := fmt.Sprintf("and %d more", len(p)-maxFaults)
		p = append(p[:maxFaults:maxFaults], more)
	}
	return &FormatError{Problem: strings.Join(p, "; ")}
}

// splitMediaType returns the type and the subtype of a content type, in lower case
// (RFC 2045, section 5.1), and its parameters. Without a slash there is no subtype.
func splitMediaType(contentType string) (main, subtype, parameters string) {
	mediaType, parameters, _ := strings.Cut(contentType, ";")
	main, subtype, _ = strings.Cut(strings.ToLower(strings.TrimSpace(mediaType)), "/")
	return main, subtype, parameters
}

// isJSON reports whether a content type declares data to be JSON: */json or */*+json,
// section 3.1.1 of the JSON format.
func isJSON(contentType string) bool {
	_, subtype, _ := splitMediaType(contentType)
	return subtype == "json" || strings.HasSuffix(subtype, "+json")
}

// isText reports whether a content type declares data to be text whose bytes, if they
// are UTF-8 at all, say in UTF-8 what they mean: text/*, */xml and */*+xml, without a
// charset of another name.
func isText(contentType string) bool {
	main, subtype, parameters := splitMediaType(contentType)
	if main != "text" && subtype != "xml" && !strings.HasSuffix(subtype, "+xml") {
		return false
	}
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(parameter, "=")
		if strings.EqualFold(strings.TrimSpace(name), "charset") {
			charset := strings.ToLower(strings.Trim(value, " \t\""))
			return charset == "utf-8" || charset == "us-ascii"
		}
	}
	return true
}
