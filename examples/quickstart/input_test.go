package main

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

const goodLine = `{"specversion":"1.0","id":"1","source":"/test","type":"x"}`

// kinds reads a text and says of each line whether it is an event, malformed or too long.
func kinds(t *testing.T, r io.Reader, limit int) (string, error) {
	t.Helper()
	var b strings.Builder
	number := 0
	for l, err := range readLines(r, limit) {
		if err != nil {
			return b.String(), err
		}
		if number++; l.number != number {
			t.Errorf("line %d has the number %d", number, l.number)
		}
		switch {
		case errors.As(l.malformed, new(*lineTooLongError)):
			b.WriteByte('l')
		case l.malformed != nil:
			b.WriteByte('m')
		default:
			b.WriteByte('e')
		}
	}
	return b.String(), nil
}

func TestReadLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 200<<10) // longer than the buffer
	tests := []struct {
		name, text, want string
	}{
		{"nothing", "", ""},
		{"one", goodLine + "\n", "e"},
		{"no line break at the end", goodLine + "\n" + goodLine, "ee"},
		{"DOS line breaks", goodLine + "\r\n" + goodLine + "\r\n", "ee"},
		{"blank line", goodLine + "\n\n" + goodLine + "\n", "eme"},
		{"blank line of a DOS file", goodLine + "\r\n\r\n" + goodLine + "\r\n", "eme"},
		{"only a line break", "\n", "m"},
		{"white space", " \t \n", "m"},
		{"white space at the end", goodLine + "\n ", "em"},
		{"byte order mark", "\ufeff" + goodLine + "\n", "e"},
		{"only a byte order mark", "\ufeff", "m"},
		{"byte order mark later", goodLine + "\n\ufeff" + goodLine + "\n", "em"},
		{"longer than the buffer", strings.Replace(goodLine, "/test", long, 1) + "\n" + goodLine, "ee"},
		{"at the limit", strings.Repeat("x", 299<<10) + "\n" + goodLine, "me"},
		{"over the limit", strings.Repeat("x", 300<<10) + "\n" + goodLine, "le"},
		{"over the limit, without line break", goodLine + "\n" + strings.Repeat("x", 301<<10), "el"},
		{"binary", "\x00\x01\x02\xff\n\x7fELF\n" + goodLine, "mme"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, r := range []io.Reader{strings.NewReader(tt.text), iotest.HalfReader(strings.NewReader(tt.text)), iotest.DataErrReader(strings.NewReader(tt.text))} {
				got, err := kinds(t, r, 300<<10)
				if err != nil || got != tt.want {
					t.Errorf("lines %q, error %v, want %q", got, err, tt.want)
				}
			}
		})
	}
}

func TestReadLinesError(t *testing.T) {
	t.Parallel()
	broken := errors.New("the disk is on fire")
	got, err := kinds(t, io.MultiReader(strings.NewReader(goodLine+"\n"+goodLine), iotest.ErrReader(broken)), maxLine)
	if got != "e" || !errors.Is(err, broken) || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("lines %q, error %v; want the first line and the error of the second", got, err)
	}
}

// A line that was cut off, or one of the next, must not change an event that was
// already given away.
func TestReadLinesKeepsNothing(t *testing.T) {
	t.Parallel()
	text := `{"specversion":"1.0","id":"1","source":"a","type":"x","data":{"n":1}}` + "\n" +
		`{"specversion":"1.0","id":"2","source":"b","type":"y","data":{"n":2}}` + "\n"
	var lines []line
	for l, err := range readLines(strings.NewReader(text), maxLine) {
		if err != nil || l.malformed != nil {
			t.Fatal(err, l.malformed)
		}
		lines = append(lines, l)
	}
	if len(lines) != 2 || lines[0].raw.Metadata.ID != "1" || string(lines[0].raw.Data) != `{"n":1}` {
		t.Errorf("lines %+v", lines)
	}
}

func TestReadLinesStops(t *testing.T) {
	t.Parallel()
	for _, err := range readLines(strings.NewReader(strings.Repeat(goodLine+"\n", 3)), maxLine) {
		if err != nil {
			t.Error(err)
		}
		break // the iterator must not go on: it would panic
	}
}
