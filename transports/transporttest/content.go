package transporttest

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/transports"
)

var contentTests = []test{
	{"metadata arrives as it is", nil, func(e *env) { metadataArrives(e, plainMetadata) }},
	{"binary metadata values arrive as they are", []Feature{BinaryMetadata}, func(e *env) { metadataArrives(e, binaryMetadata) }},
	{"large metadata values arrive as they are", []Feature{LargeMetadata}, func(e *env) { metadataArrives(e, largeMetadata) }},
	{"odd metadata keys arrive as they are", []Feature{OddKeys}, func(e *env) { metadataArrives(e, oddKeys) }},
	{"a message without metadata arrives", nil, bareMessageArrives},
	{"payloads arrive as they are", nil, payloadsArrive},
	{"a payload of the largest size arrives and a larger one is refused", nil, tooLargePayloadIsRefused},
}

var (
	plainMetadata = message.Metadata{
		"empty": "", "space": " ", "spaces": "  a  b  ", "number": "007", "float": "1e3", "boolean": "true", "null": "null",
		"unicode": "größe 鍵 😀 e\u0301 \u200b\ufeff", "quotes": `"'` + "`\\", "separators": "a,b;c=d&e:f|g/h?i#j", "percent": "%41%zz%",
		"json": `{"a":[1,null]}`, "newlines": "a\nb\r\nc", "tab": "\t", "time": "2026-02-03T04:05:06.000000007Z",
		"ce_time": "2026-02-03T04:05:06.7Z", "content-type": "a/b", "Content-Type": "c/d",
	}
	binaryMetadata = message.Metadata{
		"nul": "a\x00b", "only-nul": "\x00", "controls": "\x01\x07\x08\x0b\x1b\x7f\u0085", "latin1": "gr\xf6\xdfe", "any": "\xff\xfe\xc0\x80",
	}
	largeMetadata = message.Metadata{
		"large": strings.Repeat("0123456789abcdef", 4<<10), "large-too": strings.Repeat("é", 32<<10),
	}
	oddKeys = message.Metadata{
		"with space": "1", "with.dot": "2", "with/slash": "3", "größe 鍵": "4", "UPPER": "5", "upper": "6", "a=b&c": "7", "a:b": "8",
		"'quoted'": "9", "per%cent": "10", "$dollar": "11", "-": "12", strings.Repeat("k", 200): "13", "x-mine": "14", "0": "15",
	}
)

func metadataArrives(e *env, md message.Metadata) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a"))
	msg := e.newMessage("1")
	maps.Copy(msg.Metadata, md)
	if err := tr.Publish(e.topic("a"), msg); err != nil {
		e.Fatal(err)
	}
	first := e.receive(ch)
	first.Nack() // on the second way too
	for _, got := range []*message.Message{first, e.receive(ch)} {
		if diff := cmp.Diff(msg.Metadata, withoutOwn(got.Metadata)); diff != "" {
			e.Fatalf("metadata (-published +received):\n%s", diff)
		}
		got.Ack()
	}
	if _, lacking := e.Lacks[PoisonQueue]; lacking {
		return
	}
	if err := poisonOf(tr).Poison(e.Context(), e.name("s"), msg); err != nil {
		e.Fatal(err)
	}
	if diff := cmp.Diff(msg.Metadata, withoutOwn(e.list(tr, "s")[0].Message.Metadata)); diff != "" {
		e.Fatalf("metadata (-published +poisoned):\n%s", diff)
	}
}

func bareMessageArrives(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a"))
	if err := tr.Publish(e.topic("a"), &message.Message{UUID: "1"}); err != nil {
		e.Fatal(err)
	}
	got := e.receive(ch)
	got.Metadata["mine"] = "writable" // middleware does so
	if got.UUID != "1" || len(got.Payload) != 0 || transports.Topic(got) != e.topic("a") {
		e.Errorf("received %q with %q of the topic %q", got.UUID, got.Payload, transports.Topic(got))
	}
	got.Ack()
}

func payloadsArrive(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a"))
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	for _, c := range []struct {
		name    string
		payload []byte
	}{
		{"nil", nil},
		{"empty", []byte{}},
		{"NUL", []byte{0}},
		{"every byte", binary},
		{"UTF-8", []byte("größe 鍵 😀")},
		{"line ends", []byte("\r\n\n\r")},
		{"1 MiB", randomBytes(min(1<<20, e.MaxMessageBytes))},
	} {
		msg := e.newMessage(c.name)
		msg.Payload = c.payload
		if err := tr.Publish(e.topic("a"), msg); err != nil {
			e.Fatalf("%s: %v", c.name, err)
		}
		got := e.receive(ch)
		if got.UUID != c.name || !bytes.Equal(got.Payload, c.payload) {
			e.Errorf("%s: received %q with %d bytes; want the same %d", c.name, got.UUID, len(got.Payload), len(c.payload))
		}
		got.Ack()
	}
}

// randomBytes are the same in every run, and can't be compressed.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

func tooLargePayloadIsRefused(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a"))
	msg := e.newMessage("too large")
	msg.Payload = make([]byte, e.MaxMessageBytes+1)
	if err := tr.Publish(e.topic("a"), msg); !errors.Is(err, transports.ErrTooLarge) {
		e.Errorf("%d bytes: %v; want ErrTooLarge", len(msg.Payload), err)
	}
	msg = e.newMessage("largest")
	msg.Payload = randomBytes(e.MaxMessageBytes)
	if err := tr.Publish(e.topic("a"), msg); err != nil {
		e.Fatalf("%d bytes: %v", len(msg.Payload), err)
	}
	got := e.receive(ch)
	if got.UUID != "largest" || !bytes.Equal(got.Payload, msg.Payload) {
		e.Errorf("received %q with %d bytes", got.UUID, len(got.Payload))
	}
	got.Ack()
	e.quiet(ch)
}
