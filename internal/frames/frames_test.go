package frames

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
)

// from is a connection that reads from a reader.
type from struct {
	net.Conn
	io.Reader
}

func (f from) Read(p []byte) (int, error) { return f.Reader.Read(p) }

const testFrame = 131072

// pass sends bytes through a Conn.
func pass(t *testing.T, in []byte, wrap func(io.Reader) io.Reader) []byte {
	t.Helper()
	out, err := io.ReadAll(New(from{Reader: wrap(bytes.NewReader(in))}, testFrame))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func frame(kind byte, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind, 0, 7}, uint32(len(payload)))
	return append(append(b, payload...), frameEnd)
}

// content makes a content header with a content type, headers and a delivery mode.
func content(table []byte) []byte {
	b := binary.BigEndian.AppendUint64([]byte{0, 60, 0, 0}, 5)
	b = binary.BigEndian.AppendUint16(b, contentType|headers|1<<12)
	b = append(b, 3, 'a', '/', 'b')
	b = binary.BigEndian.AppendUint32(b, uint32(len(table)))
	return append(append(b, table...), 2)
}

func named(name string, value []byte) []byte {
	return append(append([]byte{byte(len(name))}, name...), value...)
}

func container(kind byte, content []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(content))), content...)
}

func nested(depth int) []byte {
	value := []byte{'V'}
	for range depth {
		value = container('A', value)
	}
	return value
}

func listOf(n int) []byte { return container('A', bytes.Repeat([]byte{'b', 1}, n)) }

func tableWith(n int) []byte {
	var b []byte
	for i := range n {
		b = append(b, named(fmt.Sprint(i), []byte{'V'})...)
	}
	return container('F', b)
}

// headersOf reads the content header back, and fails where the client would.
func headersOf(t *testing.T, stream []byte) map[string][]byte {
	t.Helper()
	if stream[0] != contentHeader || stream[len(stream)-1] != frameEnd || len(stream) > testFrame {
		t.Fatalf("a frame of type %d with %d bytes", stream[0], len(stream))
	}
	payload := stream[headSize : len(stream)-endSize]
	if int(binary.BigEndian.Uint32(stream[sizeOf:])) != len(payload) || !readable(payload) {
		t.Fatal("the client could not read the frame")
	}
	begin, end, ok := tableOf(payload)
	if !ok || end != len(payload)-1 || payload[end] != 2 || !bytes.Equal(payload[propertiesOf:begin-4], []byte("\x03a/b")) {
		t.Fatalf("the properties around the headers have changed")
	}
	found := make(map[string][]byte)
	for _, f := range fieldsOf(payload[begin:end]) {
		found[string(f.name[1:])] = f.value
	}
	return found
}

func TestUnreadableHeadersBecomeText(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		value []byte
		check func(any) bool
	}{
		"long list":   {listOf(maxElements + 1), func(v any) bool { l, ok := v.([]any); return ok && len(l) == maxElements+1 && l[0] == 1.0 }},
		"large table": {tableWith(maxElements + 1), func(v any) bool { m, ok := v.(map[string]any); _, there := m["8192"]; return ok && there }},
		"deep list":   {nested(maxDepth + 1), func(v any) bool { _, ok := v.([]any); return ok }},
		"below":       {container('A', listOf(maxElements+1)), func(v any) bool { l, ok := v.([]any); return ok && len(l) == 1 }},
	} {
		table := append(named("before", textField("x")), named("bad", c.value)...)
		table = append(table, named("after", []byte{'t', 1})...)
		if readable(content(table)) {
			t.Errorf("%s: taken for readable", name)
		}
		got := headersOf(t, pass(t, frame(contentHeader, content(table)), func(r io.Reader) io.Reader { return r }))
		if !bytes.Equal(got["before"], textField("x")) || !bytes.Equal(got["after"], []byte{'t', 1}) || len(got) != 3 {
			t.Errorf("%s: other headers have changed: %v", name, got)
		}
		var value any
		if err := json.Unmarshal(got["bad"][5:], &value); err != nil || got["bad"][0] != 'S' || !c.check(value) {
			t.Errorf("%s: %v in %.80s", name, err, got["bad"])
		}
	}
}

func TestReadableHeadersAreLeftAlone(t *testing.T) {
	t.Parallel()
	every := bytes.Join([][]byte{
		{'V'},
		{'t', 1},
		{'b', 0xff},
		{'B', 1},
		{'s', 1, 2},
		{'u', 1, 2},
		{'I', 1, 2, 3, 4},
		{'i', 1, 2, 3, 4},
		{'f', 1, 2, 3, 4},
		{'D', 2, 1, 2, 3, 4},
		{'l', 1, 2, 3, 4, 5, 6, 7, 8},
		{'d', 1, 2, 3, 4, 5, 6, 7, 8},
		{'T', 0, 0, 0, 0, 5, 6, 7, 8},
		textField("text"), container('x', []byte{0}), nested(maxDepth - 1), listOf(10), tableWith(3),
	}, nil)
	for name, value := range map[string][]byte{"every type": container('A', every), "long": listOf(maxElements), "deep": nested(maxDepth)} {
		stream := bytes.Join([][]byte{
			frame(1, []byte("method")), frame(contentHeader, content(named("h", value))), frame(3, bytes.Repeat([]byte("body"), 40_000)),
			frame(8, nil), frame(contentHeader, []byte("odd")), frame(contentHeader, content(named("large", textField(strings.Repeat("l", 100_000))))),
		}, nil)
		for how, wrap := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader, "halves": iotest.HalfReader, "data and end": iotest.DataErrReader,
		} {
			if got := pass(t, stream, wrap); !bytes.Equal(got, stream) {
				t.Errorf("%s, %s: %d bytes have become %d others", name, how, len(stream), len(got))
			}
		}
	}
}

// A broker adds headers of its own to a message, such as x-death, and sends the whole even if
// it does not fit into a frame any more.
func TestHeadersOverAFrameAreShortened(t *testing.T) {
	t.Parallel()
	table := named("id", textField("1"))
	table = append(table, named("long", textField(strings.Repeat("l", 60_000)))...)
	table = append(table, named("list", listOf(8000))...)
	table = append(table, named("longer", textField(strings.Repeat("m", 70_000)))...)
	got := headersOf(t, pass(t, frame(contentHeader, content(table)), iotest.HalfReader))
	if string(got["id"][5:]) != "1" || string(got["longer"][5:]) != strings.Repeat("m", keptWhenShort) || len(got["long"]) != 60_005 {
		t.Errorf("id %.10s, %d and %d bytes", got["id"], len(got["long"]), len(got["longer"]))
	}
	if string(got[TruncatedHeader][5:]) != "longer" {
		t.Errorf("named as shortened: %s", got[TruncatedHeader])
	}
	var many []byte
	for i := range 30_000 {
		many = append(many, named(fmt.Sprint(i), []byte{'V'})...)
	}
	if got := headersOf(t, pass(t, frame(contentHeader, content(many)), iotest.HalfReader)); len(got) > maxElements {
		t.Errorf("%d headers are left", len(got))
	}
}

func TestEndInTheMiddleOfAFrame(t *testing.T) {
	t.Parallel()
	whole := frame(contentHeader, content(named("h", listOf(9000))))
	for _, length := range []int{1, headSize, headSize + 1, len(whole) - 1} {
		c := New(from{Reader: bytes.NewReader(whole[:length])}, testFrame)
		if _, err := io.ReadAll(c); !errors.Is(err, io.ErrUnexpectedEOF) && length < headSize {
			t.Errorf("%d bytes: %v", length, err)
		}
		if c.Err() == nil {
			t.Errorf("%d bytes: no error is kept", length)
		}
	}
}

func TestNumbersAreKept(t *testing.T) {
	t.Parallel()
	for want, value := range map[string][]byte{
		"-1": {'b', 0xff}, "255": {'B', 0xff}, "-2": {'s', 0xff, 0xfe}, "65534": {'u', 0xff, 0xfe}, "-3": {'I', 0xff, 0xff, 0xff, 0xfd},
		"4294967293": {'i', 0xff, 0xff, 0xff, 0xfd}, "-4": {'l', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfc}, "1.5": {'f', 0x3f, 0xc0, 0, 0},
		"2.5": {'d', 0x40, 0x04, 0, 0, 0, 0, 0, 0}, `"NaN"`: {'f', 0x7f, 0xc0, 0, 0}, `"1.23"`: {'D', 2, 0, 0, 0, 123}, "null": {'V'}, "true": {'t', 1},
		`"1970-01-01T00:00:01Z"`: {'T', 0, 0, 0, 0, 0, 0, 0, 1}, `["a\"b",{"k":[]}]`: container('A', append(textField(`a"b`), container('F', named("k", container('A', nil)))...)),
	} {
		if got := jsonOf(value); got != want {
			t.Errorf("%s; want %s", got, want)
		}
	}
}

// Whatever a broker sends, the client gets frames that it can read, or the end.
func FuzzRead(f *testing.F) {
	f.Add(frame(contentHeader, content(named("h", listOf(9000)))))
	f.Add(frame(contentHeader, content(named("h", nested(40)))))
	f.Add(append(frame(1, []byte("method")), frame(3, []byte("body"))...))
	f.Add([]byte{2, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		out, _ := io.ReadAll(New(from{Reader: bytes.NewReader(in)}, testFrame))
		for len(out) > headSize {
			size := int(binary.BigEndian.Uint32(out[sizeOf:]))
			whole := headSize + size + endSize
			if whole > len(out) {
				return
			}
			if out[0] == contentHeader && size <= maxRewritten {
				if begin, end, ok := tableOf(out[headSize : headSize+size]); ok && !elements(out[headSize+begin:headSize+end], true, 0) {
					t.Fatalf("a frame that the client can't read: %q", out[:whole])
				}
			}
			out = out[whole:]
		}
	})
}
