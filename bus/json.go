package bus

import (
	"encoding/json"
	"errors"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

// unmarshalJSON does what [json.Unmarshal] does, in half the time: by the implementation
// that encoding/json has from Go 1.27 on, which reads the data once. Whatever that one
// refuses, or does otherwise, is left to encoding/json, whose errors are documented.
// It goes when go.mod asks for Go 1.27.
func unmarshalJSON(data []byte, event any) error {
	if jsonv2.Unmarshal(data, event, asEncodingJSON) == nil {
		return nil
	}
	return json.Unmarshal(data, event) // fills again what was filled from the same data
}

var asEncodingJSON = jsonv2.JoinOptions(
	jsonv1.DefaultOptionsV1(),
	// To which a json.Number of another package is just text.
	jsonv2.WithUnmarshalers(jsonv2.UnmarshalFromFunc(func(*jsontext.Decoder, *json.Number) error { return errNumber })),
)

var errNumber = errors.New("left to encoding/json")
