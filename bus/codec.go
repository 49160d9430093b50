package bus

import (
	"encoding/json"
	"mime"
	"strings"
)

// Codec turns events into bytes and back. It must be safe for concurrent use.
type Codec interface {
	// ContentType is the media type of what Marshal writes.
	ContentType() string

	// Accepts reports whether Unmarshal reads data of a content type, which can
	// have parameters and is empty when the publisher gave none.
	Accepts(contentType string) bool

	Marshal(event any) ([]byte, error)

	// Unmarshal fills the event that a pointer leads to. It must not keep data.
	Unmarshal(data []byte, event any) error
}

// JSON is the default [Codec]: encoding/json. It reads application/json,
// text/json and every type that ends in +json, and takes data without a content
// type to be JSON, as CloudEvents does.
type JSON struct{}

var _ Codec = JSON{}

const jsonType = "application/json"

// ContentType returns "application/json".
func (JSON) ContentType() string { return jsonType }

// Accepts reports whether the content type is one of JSON.
func (JSON) Accepts(contentType string) bool {
	if contentType == jsonType || contentType == "" {
		return true
	}
	mediaType, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	// A structured-mode CloudEvent is JSON whose data is one level deeper.
	return mediaType == jsonType || mediaType == "text/json" ||
		strings.HasSuffix(mediaType, "+json") && mediaType != "application/cloudevents+json"
}

// Marshal encodes an event.
func (JSON) Marshal(event any) ([]byte, error) { return json.Marshal(event) }

// Unmarshal decodes an event.
func (JSON) Unmarshal(data []byte, event any) error { return json.Unmarshal(data, event) }
