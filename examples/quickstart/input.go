package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

// maxLine is the longest line that is read, in bytes. Input without line breaks, a
// disk image for example, must not fill the memory. It leaves room for data of
// transports.DefaultMaxMessageBytes of which every byte is written as \u0041.
const maxLine = 8 * transports.DefaultMaxMessageBytes

// line is an event of the input, or what was there instead of one.
type line struct {
	number    int // from 1
	raw       bus.Raw
	malformed error // why it is no CloudEvent; nil when it is one
}

// input is where the events come from.
type input struct {
	name   string
	lines  iter.Seq2[line, error] // an error is one of reading, and the end
	sample *sample                // nil unless the events are those of the sample
	close  func()
}

// openInput opens what the flag -input names.
func openInput(name string, stdin io.Reader) (*input, error) {
	switch name {
	case "":
		s := newSample()
		return &input{name: "the sample", lines: s.all, sample: s, close: func() {}}, nil
	case "-":
		return &input{name: "standard input", lines: readLines(stdin, maxLine), close: func() {}}, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("-input: %w", err)
	}
	closeFile := func() { _ = f.Close() } // it was only read
	if info, err := f.Stat(); err == nil && info.IsDir() {
		closeFile()
		return nil, fmt.Errorf("-input: %s is a directory", name)
	}
	return &input{name: name, lines: readLines(f, maxLine), close: closeFile}, nil
}

// byteOrderMark is what some editors begin a file with; RFC 8259, section 8.1, lets
// parsers ignore it.
var byteOrderMark = []byte("\ufeff")

// readLines reads an event from each line of r. A line may be of up to limit bytes,
// the line break included. The last line needs no line break.
func readLines(r io.Reader, limit int) iter.Seq2[line, error] {
	return func(yield func(line, error) bool) {
		in := bufio.NewReaderSize(r, 64<<10)
		var text []byte
		for number := 1; ; number++ {
			var err error
			text, err = readLine(in, text[:0], limit)
			var tooLong *lineTooLongError
			if err != nil && !errors.As(err, &tooLong) {
				if !errors.Is(err, io.EOF) {
					yield(line{number: number}, fmt.Errorf("read line %d: %w", number, err))
				}
				return
			}
			l := line{number: number}
			switch {
			case tooLong != nil:
				l.malformed = tooLong
			case number == 1:
				l.raw.Metadata, l.raw.Data, l.malformed = events.ParseJSON(bytes.TrimPrefix(text, byteOrderMark))
			default:
				l.raw.Metadata, l.raw.Data, l.malformed = events.ParseJSON(text)
			}
			if !yield(l, nil) {
				return
			}
		}
	}
}

type lineTooLongError struct{ limit int }

func (e *lineTooLongError) Error() string {
	return fmt.Sprintf("the line is longer than %d bytes", e.limit)
}

// readLine appends the next line to text. The error is io.EOF after the last one. A
// line that is too long is read to its end and dropped.
func readLine(in *bufio.Reader, text []byte, limit int) ([]byte, error) {
	var tooLong error
	for read := 0; ; {
		part, err := in.ReadSlice('\n')
		if tooLong == nil {
			if read += len(part); read > limit {
				tooLong = &lineTooLongError{limit}
			} else {
				text = append(text, part...)
			}
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull): // the line goes on
		case errors.Is(err, io.EOF) && read > 0:
			return text, tooLong // the last line has no line break
		case err != nil:
			return text, err
		default:
			return text, tooLong
		}
	}
}
