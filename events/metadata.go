package events

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// SpecVersion is the version of the CloudEvents specification that [Metadata]
// follows: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
const SpecVersion = "1.0"

// Metadata is what is known of an event besides its data: the context
// attributes of CloudEvents 1.0 and, in a handler, the delivery.
//
// ID and Source together identify an event: a second copy of it, published
// again after a lost confirm for example, has the same pair.
type Metadata struct {
	ID              string    // any non-empty text; a UUIDv7 unless the publisher chose one
	Source          string    // a URI-reference that names the publisher, such as "shop"
	Type            string    // the event's wire name, such as "order.created"
	Time            time.Time // when the event happened; the zero time when unknown
	Subject         string    // what the event is about within its source; optional
	DataContentType string    // media type of the data, such as "application/json"
	DataSchema      string    // URI of the schema of the data; optional

	CorrelationID string // the same for all events of one business transaction
	CausationID   string // id of the event whose handler published this one; empty for the first
	PartitionKey  string // events with one key are handled in order by ordered subscriptions
	TraceParent   string // W3C Trace Context, https://www.w3.org/TR/trace-context/
	TraceState    string // W3C Trace Context

	// Extensions are the remaining extension attributes by name. Names are
	// lower-case ASCII letters and digits.
	Extensions map[string]string

	Subscription string // in a handler: the name of the subscription; not sent
	Attempt      int    // in a handler: 1 for the first try, counting on across redeliveries; not sent
}

// NewID returns a new event id: a UUIDv7 (RFC 9562), which sorts by time.
func NewID() string {
	// NewV7 fails only when the operating system's random source does, and
	// crypto/rand ends the program before it returns an error.
	return uuid.Must(uuid.NewV7()).String()
}

type metadataKey struct{}

// WithMetadata returns a context that carries md for [MetadataFrom]. The bus
// and its middleware call it; a test of a handler may as well. md must not be
// changed afterwards.
func WithMetadata(ctx context.Context, md *Metadata) context.Context {
	return context.WithValue(ctx, metadataKey{}, md)
}

// MetadataFrom returns the metadata of the event being handled, and false when
// ctx does not come from a handler. Its Extensions must not be changed.
func MetadataFrom(ctx context.Context) (Metadata, bool) {
	md, _ := ctx.Value(metadataKey{}).(*Metadata)
	if md == nil {
		return Metadata{}, false
	}
	return *md, true
}

// Validate reports every fault of the attributes at once, as joined
// [*ValidationError] values: an empty id, source or type, a text that CloudEvents
// does not allow (section "Type System" of the specification: no control
// characters, valid Unicode), a time that RFC 3339 can't write, or a bad
// extension name.
func (m *Metadata) Validate() error {
	var faults []error
	required := func(name, value string) {
		if value == "" {
			faults = append(faults, &ValidationError{name, "is empty"})
		}
	}
	required("id", m.ID)
	required("source", m.Source)
	required("type", m.Type)
	text := func(name, value string) {
		if problem := textProblem(value); problem != "" {
			faults = append(faults, &ValidationError{name, problem})
		}
	}
	text("id", m.ID)
	for i := range attributes {
		text(attributes[i].name, *m.attribute(attributes[i].name))
	}
	if year := m.Time.UTC().Year(); year < 0 || year > 9999 {
		faults = append(faults, &ValidationError{"time", "is not in the years 0 to 9999"})
	}
	ofExtensions := len(faults)
	for name, value := range m.Extensions {
		if problem := extensionNameProblem(name); problem != "" {
			faults = append(faults, &ValidationError{fmt.Sprintf("extension %.40q", name), problem})
			continue
		}
		text(name[:min(len(name), 40)], value)
	}
	// In one order, so that one fault has one error text to count and group by.
	slices.SortFunc(faults[ofExtensions:], func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(faults...)
}

// textProblem says why CloudEvents does not allow s as a String, or returns "".
func textProblem(s string) string {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f {
			return textProblemSlow(s)
		}
	}
	return ""
}

func textProblemSlow(s string) string {
	for i, r := range s {
		switch {
		case r < 0x20 || r >= 0x7f && r <= 0x9f:
			return fmt.Sprintf("has the control character U+%04X at byte %d", r, i)
		case r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe:
			return fmt.Sprintf("has the noncharacter U+%04X at byte %d", r, i)
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			return fmt.Sprintf("is not valid UTF-8 at byte %d", i)
		}
	}
	return ""
}

// extensionNameProblem says why name can't be an extension attribute, or "".
// Section "Attribute Naming Convention" of the specification.
func extensionNameProblem(name string) string {
	if name == "" {
		return "is empty"
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return "is not made of lower-case ASCII letters and digits only"
		}
	}
	if reserved(name) {
		return "is the name of a CloudEvents attribute with a field of its own"
	}
	return ""
}
