package bus

import (
	"encoding/json"
	"reflect"
	"sync"

	jsonv2 "github.com/go-json-experiment/json"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

// unmarshalJSON does what [json.Unmarshal] does, in less than half the time: by the
// implementation that encoding/json has from Go 1.27 on, which reads the data once.
// Whatever that one refuses is left to encoding/json, whose errors are documented; an event
// that can't be decoded may be filled in part then. A [json.Number] is not seen where an
// interface leads to it that the caller has filled: there, any text is taken for one.
//
// It goes when go.mod asks for Go 1.27.
func unmarshalJSON(data []byte, event any) error {
	if !hasNumber(reflect.TypeOf(event)) && jsonv2.Unmarshal(data, event, likeEncodingJSON) == nil {
		return nil
	}
	return json.Unmarshal(data, event)
}

var likeEncodingJSON = jsonv2.JoinOptions(
	jsonv1.DefaultOptionsV1(),
	jsonv1.ReportErrorsWithLegacySemantics(false), // it would read the data a second time, for errors that nobody sees
)

// numbered caches hasNumber.
var numbered sync.Map // of bool, by reflect.Type

// hasNumber reports whether a type contains [json.Number], which to another package is
// just a text.
func hasNumber(t reflect.Type) bool {
	if found, ok := numbered.Load(t); ok {
		return found.(bool)
	}
	found := findNumber(t, make(map[reflect.Type]bool))
	numbered.Store(t, found)
	return found
}

func findNumber(t reflect.Type, seen map[reflect.Type]bool) bool {
	if t == nil || seen[t] {
		return false
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.String:
		return t == reflect.TypeFor[json.Number]()
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return findNumber(t.Elem(), seen)
	case reflect.Struct:
		for field := range t.Fields() {
			if findNumber(field.Type, seen) {
				return true
			}
		}
	}
	return false
}
