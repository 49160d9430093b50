package bus

import (
	"encoding/json"
	"errors"
	"fmt"
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

	// Marshal encodes an event. The result is given away: the codec must not use it
	// again.
	Marshal(event any) ([]byte, error)

	// Unmarshal fills the event that a pointer leads to. It must not keep data.
	Unmarshal(data []byte, event any) error
}

// SelectiveCodec is a [Codec] that can't encode every event. One without this method
// can, so it comes last in Config.Codecs.
type SelectiveCodec interface {
	Codec

	// Encodes reports whether Marshal can encode an event of this type.
	Encodes(event any) bool
}

// JSON is the default [Codec]: encoding/json. It reads application/json,
// text/json and every type that ends in +json, and takes data without a content
// type to be JSON, as CloudEvents does.
//
// It leaves protobuf messages alone, whose JSON form encoding/json does not know, unless
// they have methods for it.
type JSON struct{}

var _ SelectiveCodec = JSON{}

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
		strings.HasSuffix(mediaType, "+json") && structuredType(mediaType) == ""
}

// protobufMessage is what all generated protobuf types implement.
type protobufMessage interface{ ProtoMessage() }

var errProtobuf = errors.New("encoding/json does not know the JSON form of a protobuf message")

// Encodes reports whether an event is not a protobuf message, or has MarshalJSON.
func (JSON) Encodes(event any) bool {
	_, message := event.(protobufMessage)
	_, able := event.(json.Marshaler)
	return !message || able
}

// Marshal encodes an event.
func (c JSON) Marshal(event any) ([]byte, error) {
	if !c.Encodes(event) {
		return nil, errProtobuf
	}
	return json.Marshal(event)
}

// Unmarshal decodes an event, as [json.Unmarshal] does and with its errors. What could not
// be decoded may be filled in part.
func (JSON) Unmarshal(data []byte, event any) error {
	if _, message := event.(protobufMessage); message {
		if _, able := event.(json.Unmarshaler); !able {
			return errProtobuf
		}
	}
	return unmarshalJSON(data, event)
}

// codecFor returns the codec that writes events of a type, of which event is one.
func (e *Encoder) codecFor(event any) (Codec, error) {
	for _, codec := range e.codecs {
		if selective, ok := codec.(SelectiveCodec); !ok || selective.Encodes(event) {
			return codec, nil
		}
	}
	return nil, &TypeError{fmt.Sprintf("%T", event), "can be encoded by no codec of Config.Codecs; add one, for protobuf messages that of codecs/protobuf"}
}
