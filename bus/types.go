package bus

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/gotidings/tidings/events"
)

// registry knows the wire names of Go types that can't tell theirs.
type registry struct {
	mu     sync.RWMutex // guards both maps
	names  map[reflect.Type]string
	goType map[string]reflect.Type

	events sync.Map // reflect.Type to string: names that types told themselves, checked once

	telling sync.Mutex // guards told
	told    map[string][]reflect.Type
}

// Register gives a Go type its wire name, for types that do not implement
// [events.Event]: protobuf messages, other people's structs, pointers. It is
// called before the type is subscribed to or published. Faults, such as a name
// that another type has, are reported by Start and Publish.
func Register[T any](b *Bus, eventType string) {
	if err := RegisterType[T](b.encoder, eventType); err != nil {
		b.fault(err)
	}
}

func (r *registry) register(t reflect.Type, name string) error {
	if problem := eventTypeProblem(name); problem != "" {
		return &TypeError{t.String(), fmt.Sprintf("is registered as %q, which %s", name, problem)}
	}
	return r.add(t, name)
}

func (r *registry) add(t reflect.Type, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if other, taken := r.goType[name]; taken && other != t {
		return &TypeError{t.String(), fmt.Sprintf("is registered as %q, and so is %s; each type needs a name of its own", name, other)}
	}
	if other, taken := r.names[t]; taken && other != name {
		return &TypeError{t.String(), fmt.Sprintf("is registered as %q and as %q; it can have one name", other, name)}
	}
	if r.names == nil {
		r.names, r.goType = make(map[reflect.Type]string), make(map[string]reflect.Type)
	}
	r.names[t], r.goType[name] = name, t
	return nil
}

func (r *registry) lookup(t reflect.Type) (string, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	name, ok := r.names[t]
	return name, ok
}

// nameOf returns the wire name of an event to publish.
func (e *Encoder) nameOf(event any) (string, error) {
	t := reflect.TypeOf(event)
	if t == nil {
		return "", &TypeError{"nil", "is not an event"}
	}
	if t.Kind() == reflect.Pointer && reflect.ValueOf(event).IsNil() {
		return "", &TypeError{t.String(), "is nil"}
	}
	return e.name(t, event)
}

// name returns the wire name of a Go type, of which value is one.
func (e *Encoder) name(t reflect.Type, value any) (string, error) {
	if name, ok := e.types.lookup(t); ok {
		return name, nil
	}
	if name, ok := e.types.events.Load(t); ok {
		return name.(string), nil
	}
	event, ok := value.(events.Event)
	switch {
	case t.Kind() == reflect.Pointer:
		return "", &TypeError{t.String(), fmt.Sprintf("is a pointer and not registered; use the value type, or bus.Register[%s](b, name)", t)}
	case !ok:
		return "", &TypeError{t.String(), fmt.Sprintf("has no EventType method on its value and is not registered; add one, or bus.Register[%s](b, name)", t)}
	}
	name := event.EventType()
	if problem := eventTypeProblem(name); problem != "" {
		return "", &TypeError{t.String(), fmt.Sprintf("has the event type %q, which %s", name, problem)}
	}
	if err := e.types.tell(t, name); err != nil {
		return "", err
	}
	return name, nil
}

var eventInterface = reflect.TypeFor[events.Event]()

// tell notes the name that a type told. Several types may have one name, as views of one event.
// A type that embeds an event has its EventType without having asked for it, and both would be
// delivered to the subscriptions of either.
func (r *registry) tell(t reflect.Type, name string) error {
	r.telling.Lock()
	defer r.telling.Unlock()
	for _, other := range r.told[name] {
		for _, shared := range embedded(t) {
			if shared == other || slices.Contains(embedded(other), shared) {
				return &TypeError{t.String(), fmt.Sprintf("has the event type %q, as %s has, by the embedded event %s; "+
					"give the type that embeds it an EventType method of its own, or a field instead of the embedded event", name, other, shared)}
			}
		}
		if slices.Contains(embedded(other), t) {
			return &TypeError{other.String(), fmt.Sprintf("has the event type %q by the embedded event %s; "+
				"give it an EventType method of its own, or a field instead of the embedded event", name, t)}
		}
	}
	if r.told == nil {
		r.told = make(map[string][]reflect.Type)
	}
	if !slices.Contains(r.told[name], t) {
		r.told[name] = append(r.told[name], t)
	}
	r.events.Store(t, name)
	return nil
}

// embedded lists the events that a struct embeds, at any depth.
func embedded(t reflect.Type) (list []reflect.Type) {
	if t.Kind() != reflect.Struct {
		return nil
	}
	for field := range t.Fields() {
		if !field.Anonymous || !field.Type.Implements(eventInterface) {
			continue
		}
		inner := field.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		list = append(append(list, inner), embedded(inner)...)
	}
	return list
}

// eventTypeProblem says why name can't be the wire name of a type, or "".
func eventTypeProblem(name string) string {
	if name == "" {
		return "is empty"
	}
	for word := range strings.SplitSeq(name, ".") {
		if word == "" {
			return "has an empty word; words are joined by single dots"
		}
	}
	for _, r := range name {
		switch {
		case r == '*' || r == '#':
			return "has a wildcard"
		case unicode.IsControl(r) || unicode.IsSpace(r) || r == unicode.ReplacementChar:
			return "has a space or a control character"
		}
	}
	return ""
}
