package events

import (
	"bytes"
	"encoding/base64"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// ParseJSON reads an event in the JSON format. The data is nil when there is none;
// otherwise it is what data_base64 encodes, or what data is: for a JSON content type
// the JSON value with every byte as it stands, for another one the text that a string
// holds; where it is no string all the same, which section 3.1.1 lets a reader refuse, the
// JSON value. Data without a content type is JSON by section 3.1.2 of the format, and
// DataContentType says so. Extension attributes that are numbers or booleans become
// their canonical texts; an attribute that is null counts as left out.
//
// The error is a [*FormatError]. ParseJSON is strict where readers could differ in what
// they understand: it refuses a member that is there twice or is an attribute's name in
// other capitals, half of a surrogate pair, invalid UTF-8, an attribute of the wrong
// type, and what [Metadata.Validate] does not allow. It keeps no part of text.
func ParseJSON(text []byte) (Metadata, []byte, error) {
	members, err := splitObject(text)
	if err != nil {
		return Metadata{}, nil, err
	}
	var p problems
	md := parseAttributes(members, &p)
	data := parseData(members, &md, &p)
	if err := p.err(); err != nil {
		return Metadata{}, nil, err
	}
	return md, data, nil
}

func parseAttributes(members []member, p *problems) Metadata {
	var md Metadata
	version := ""
	for _, m := range members {
		if string(m.value) == "null" || m.name == "data" || m.name == "data_base64" {
			continue
		}
		text, problem := attributeText(m.value, isCore(m.name))
		if m.name == "specversion" {
			version = SpecVersion // one of a wrong type is one fault and not two
		}
		if problem != "" {
			p.add("%.40q %s", m.name, problem)
			continue
		}
		field := md.attribute(m.name)
		switch {
		case field != nil:
			*field = text
		case m.name == "id":
			md.ID = text
		case m.name == "specversion":
			version = text
		case m.name == "time":
			var err error
			if md.Time, err = parseTime(text); err != nil {
				p.add("time is not of RFC 3339")
			}
		default:
			if md.Extensions == nil {
				md.Extensions = make(map[string]string)
			}
			md.Extensions[m.name] = text
		}
	}
	if len(*p) == 0 { // an id that is a number is not empty as well
		p.addAll(md.Validate())
	}
	switch version {
	case SpecVersion:
	case "":
		p.add("specversion is missing")
	default:
		p.add("specversion is %.40q and not %q", version, SpecVersion)
	}
	return md
}

// isCore reports whether name is an attribute of the CloudEvents specification itself,
// all of which are texts.
func isCore(name string) bool {
	switch name {
	case "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema":
		return true
	}
	return false
}

// addAll adds the faults that err joins.
func (p *problems) addAll(err error) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return
	}
	for _, fault := range joined.Unwrap() {
		p.add("%v", fault)
	}
}

// attributeText returns the value of an attribute in its canonical text form, or what
// is wrong with it. Extensions can be strings, booleans and whole numbers of 32 bits
// (the CloudEvents specification, section "Type System"), the others strings only.
func attributeText(value []byte, stringOnly bool) (text, problem string) {
	switch c := value[0]; {
	case c == '"':
		if hasLoneSurrogate(value) {
			return "", "has half of a surrogate pair"
		}
		return decodeString(value), ""
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

// rfc3339 is the syntax of section 5.6. Package time reads more than that, such as an
// hour of one digit, and less: it does not take t and z, nor a leap second.
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

func parseTime(text string) (time.Time, error) {
	text = strings.ToUpper(text)
	if !rfc3339.MatchString(text) {
		return time.Time{}, errors.New("not RFC 3339")
	}
	t, err := time.Parse(time.RFC3339, text)
	return t.UTC(), err
}

// parseData returns the data, section 3.1.2 of the format.
func parseData(members []member, md *Metadata, p *problems) []byte {
	var data, encoded []byte
	for _, m := range members {
		switch {
		case m.name == "data":
			data = m.value // null is a value here
		case m.name == "data_base64" && string(m.value) != "null":
			encoded = m.value
		}
	}
	switch {
	case data != nil && encoded != nil:
		p.add("both data and data_base64 are there")
		return nil
	case encoded != nil:
		return decodeBase64(encoded, p)
	case data == nil:
		return nil
	case md.DataContentType == "":
		md.DataContentType = "application/json" // implied in this format, and said in others
	case !isJSON(md.DataContentType) && data[0] == '"':
		text, problem := attributeText(data, true)
		if problem != "" {
			p.add("data %s", problem)
		}
		return []byte(text)
	}
	return bytes.Clone(data)
}

func decodeBase64(value []byte, p *problems) []byte {
	text, problem := attributeText(value, true)
	data, err := base64.StdEncoding.DecodeString(text)
	// RFC 4648, section 3.3: line breaks are a fault, which package base64 ignores.
	if problem != "" || err != nil || strings.ContainsAny(text, "\r\n") {
		p.add("data_base64 is not base64")
	}
	return data
}
