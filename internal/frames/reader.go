package frames

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
)

// The layout of a frame (AMQP 0-9-1, section 4.2.3): type, channel, size, payload, end.
const (
	headSize  = 7
	endSize   = 1
	frameEnd  = 0xCE
	typeOf    = 0 // offsets in a head
	channelOf = 1
	sizeOf    = 3

	contentHeader = 2 // a type
)

const (
	bufferSize = 64 << 10

	// maxRewritten is the largest content header that is rewritten. A broker's frames have
	// 128 KiB by default, and a content header is at most a few KiB over it.
	maxRewritten = 16 << 20
)

// Conn is a connection of which the client can read every content header: those that it
// could not are rewritten. One goroutine at a time may read, as the client does.
type Conn struct {
	net.Conn
	maxFrame atomic.Int64
	failed   atomic.Pointer[error] // what Read returned last, if it failed
	in       *bufio.Reader
	rest     int    // bytes of the current frame that are passed on as they are
	out      []byte // of a rewritten frame
}

// New returns a Conn for a client that takes frames of at most maxFrame bytes.
func New(conn net.Conn, maxFrame int) *Conn {
	c := &Conn{Conn: conn, in: bufio.NewReaderSize(conn, bufferSize)}
	c.SetMaxFrame(maxFrame)
	return c
}

// SetMaxFrame sets the size of the largest frame that the client takes, once it has agreed on
// another with the broker.
func (c *Conn) SetMaxFrame(size int) { c.maxFrame.Store(int64(size)) }

// Err returns the error that Read has ended with, nil before. The client keeps its text only.
func (c *Conn) Err() error {
	if err := c.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// Read reads as many frames as have arrived, and blocks only for the first of them.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.read(p)
	if err != nil {
		c.failed.Store(&err)
	}
	return n, err
}

func (c *Conn) read(p []byte) (n int, err error) {
	for n < len(p) {
		switch {
		case len(c.out) > 0:
			copied := copy(p[n:], c.out)
			c.out = c.out[copied:]
			n += copied
		case n > 0 && c.in.Buffered() == 0:
			return n, nil
		case c.rest > 0:
			read, err := c.in.Read(p[n:min(len(p), n+c.rest)])
			c.rest -= read
			n += read
			if err != nil {
				return n, err
			}
		case n > 0 && !c.arrived():
			return n, nil
		default:
			if err := c.next(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// arrived reports whether next would not block.
func (c *Conn) arrived() bool {
	have := c.in.Buffered()
	if have < headSize {
		return false
	}
	head, _ := c.in.Peek(headSize) // buffered
	return head[typeOf] != contentHeader || have >= headSize+int(binary.BigEndian.Uint32(head[sizeOf:]))+endSize
}

// next looks at the frame that begins here.
func (c *Conn) next() error {
	head, err := c.in.Peek(headSize)
	if err != nil {
		if len(head) > 0 && err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	maxFrame := int(c.maxFrame.Load())
	size := int(binary.BigEndian.Uint32(head[sizeOf:]))
	whole := headSize + size + endSize
	if head[typeOf] != contentHeader || size > maxRewritten {
		c.rest = whole
		return nil
	}
	var frame []byte
	if whole <= bufferSize {
		if frame, err = c.in.Peek(whole); err != nil {
			return err
		}
		if readable(frame[headSize:headSize+size]) && whole <= maxFrame {
			c.rest = whole
			return nil
		}
		_, _ = c.in.Discard(whole) // buffered; nothing overwrites frame before the next Peek
	} else {
		frame = make([]byte, whole)
		if _, err := io.ReadFull(c.in, frame); err != nil {
			return err
		}
	}
	payload := frame[headSize : headSize+size]
	if !readable(payload) || whole > maxFrame {
		payload = rewrite(payload, maxFrame-headSize-endSize)
	}
	c.out = append(make([]byte, 0, headSize+len(payload)+endSize), contentHeader, frame[channelOf], frame[channelOf+1])
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(len(payload))) //nolint:gosec // at most maxRewritten, or a frame
	c.out = append(append(c.out, payload...), frameEnd)
	return nil
}
