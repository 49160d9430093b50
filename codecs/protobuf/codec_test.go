package protobuf_test

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/gotidings/tidings/codecs/protobuf"
)

func TestAccepts(t *testing.T) {
	t.Parallel()
	for contentType, want := range map[string]bool{
		"application/protobuf": true, "application/x-protobuf": true, "Application/X-Protobuf ; a=b": true,
		"application/protobuf; encoding=Binary": true, "application/protobuf;version=1": true,

		"": false, "application/json": false, "protobuf": false, ";": false, "application/octet-stream": false,
		"application/protobuf+json": false, "application/protobuf; encoding=json": false, "application/x-protobuf;": true,
		"application/cloudevents+protobuf": false,
	} {
		if got := (protobuf.Codec{}).Accepts(contentType); got != want {
			t.Errorf("Accepts(%q) = %t, want %t", contentType, got, want)
		}
	}
	if !(protobuf.Codec{}).Accepts((protobuf.Codec{}).ContentType()) {
		t.Error("does not accept what it writes")
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	codec := protobuf.Codec{}
	for name, m := range map[string]proto.Message{
		"text":  wrapperspb.String("é\x00"),
		"bytes": wrapperspb.Bytes([]byte{0, 0xff}),
		"empty": wrapperspb.Int64(0),
		"time":  &timestamppb.Timestamp{Seconds: 1770000000, Nanos: 7},
	} {
		data, err := codec.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if data == nil {
			t.Errorf("%s: nil, which means no data", name)
		}
		got := m.ProtoReflect().New().Interface()
		if err := codec.Unmarshal(data, got); err != nil || !proto.Equal(got, m) {
			t.Errorf("%s: %v and the error %v, want %v", name, got, err, m)
		}
	}
}

// Maps are what makes the encoding differ from one time to the next.
func TestEqualMessagesGiveEqualBytes(t *testing.T) {
	t.Parallel()
	fields := make(map[string]any)
	for name := range strings.FieldsSeq("a b c d e f g h i j k l m n o p") {
		fields[name] = name
	}
	var first string
	for i := range 50 {
		m, err := structpb.NewStruct(fields)
		if err != nil {
			t.Fatal(err)
		}
		data, err := protobuf.Codec{}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = string(data)
		}
		if string(data) != first {
			t.Fatal("the bytes differ")
		}
	}
}

type plain struct{ Name string }

func TestWhatIsNoMessageIsRefused(t *testing.T) {
	t.Parallel()
	codec := protobuf.Codec{}
	for name, event := range map[string]any{"protobuf_test.plain": plain{}, "*protobuf_test.plain": &plain{}, "<nil>": nil, "string": "x"} {
		if codec.Encodes(event) {
			t.Errorf("%s: Encodes says so", name)
		}
		_, err := codec.Marshal(event)
		if refused, ok := errors.AsType[*protobuf.MessageError](err); !ok || refused.GoType != name {
			t.Errorf("%s: marshal: %v", name, err)
		}
	}
	err := codec.Unmarshal(nil, &plain{})
	if refused, ok := errors.AsType[*protobuf.MessageError](err); !ok || refused.GoType != "protobuf_test.plain" {
		t.Errorf("unmarshal: %v", err)
	}
	if !codec.Encodes(wrapperspb.String("")) {
		t.Error("Encodes does not know a message")
	}
}

func TestUnmarshalKeepsNoPartOfTheData(t *testing.T) {
	t.Parallel()
	data, err := protobuf.Codec{}.Marshal(wrapperspb.Bytes([]byte("abc")))
	if err != nil {
		t.Fatal(err)
	}
	var got wrapperspb.BytesValue
	if err := (protobuf.Codec{}).Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	clear(data)
	if string(got.GetValue()) != "abc" {
		t.Errorf("value %q after the data was overwritten", got.GetValue())
	}
}

// FuzzUnmarshal checks that any data is read or refused, and that what is read can be
// written and is then the same.
func FuzzUnmarshal(f *testing.F) {
	whole, err := structpb.NewStruct(map[string]any{"a": []any{1.5, "x", nil, true}, "b": map[string]any{"c": "é"}})
	if err != nil {
		f.Fatal(err)
	}
	data, err := protobuf.Codec{}.Marshal(whole)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(nil))
	f.Add([]byte("\x0a\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, data []byte) {
		codec := protobuf.Codec{}
		var got, again structpb.Struct
		if codec.Unmarshal(data, &got) != nil {
			return
		}
		written, err := codec.Marshal(&got)
		if err != nil {
			t.Fatal(err)
		}
		if err := codec.Unmarshal(written, &again); err != nil {
			t.Fatal(err)
		}
		// By their bytes: a NaN is not equal to itself.
		rewritten, err := codec.Marshal(&again)
		if err != nil || string(rewritten) != string(written) {
			t.Errorf("read %q, wrote %q, then %q, %v", data, written, rewritten, err)
		}
	})
}
