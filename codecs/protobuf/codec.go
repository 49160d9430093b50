package protobuf

import (
	"fmt"
	"mime"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/gotidings/tidings/bus"
)

// ContentType is the media type of protobuf's binary encoding:
// https://www.iana.org/assignments/media-types/application/protobuf.
const ContentType = "application/protobuf"

// Codec writes and reads protobuf messages in the binary encoding. The zero value is
// ready for use.
type Codec struct{}

var _ bus.SelectiveCodec = Codec{}

// ContentType returns "application/protobuf".
func (Codec) ContentType() string { return ContentType }

// Accepts reports whether the content type is application/protobuf or
// application/x-protobuf, its older name, in the binary encoding, which is the one
// that there is unless the parameter "encoding" says otherwise.
func (Codec) Accepts(contentType string) bool {
	if contentType == ContentType {
		return true
	}
	mediaType, parameters, err := mime.ParseMediaType(contentType)
	if err != nil || mediaType != ContentType && mediaType != "application/x-protobuf" {
		return false
	}
	encoding, ok := parameters["encoding"]
	return !ok || strings.EqualFold(encoding, "binary")
}

// Encodes reports whether the event is a protobuf message.
func (Codec) Encodes(event any) bool {
	_, ok := event.(proto.Message)
	return ok
}

// MessageError says that an event is not a protobuf message.
type MessageError struct {
	GoType string // such as "pb.Order", whose methods *pb.Order has
}

func (e *MessageError) Error() string {
	return e.GoType + " is not a protobuf message; those are pointers to what protoc-gen-go generates"
}

// Marshal encodes a message. Equal messages give equal bytes within one build of a
// program; protobuf promises no more. The error is a [*MessageError] for what is no
// message, and protobuf's own for one that has required fields unset or text that is not
// UTF-8.
func (Codec) Marshal(event any) ([]byte, error) {
	m, ok := event.(proto.Message)
	if !ok {
		return nil, &MessageError{GoType: fmt.Sprintf("%T", event)}
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// Unmarshal decodes a message into the one that a pointer leads to. Fields that it does
// not know are kept.
func (Codec) Unmarshal(data []byte, event any) error {
	m, ok := event.(proto.Message)
	if !ok {
		return &MessageError{GoType: strings.TrimPrefix(fmt.Sprintf("%T", event), "*")}
	}
	return proto.Unmarshal(data, m)
}
