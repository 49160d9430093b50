package rabbitmq

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// gatedConn is a connection whose writes wait for a signal each.
type gatedConn struct {
	net.Conn
	gate chan struct{}

	mu     sync.Mutex // guards what follows
	writes [][]byte
	err    error
}

func (c *gatedConn) Write(p []byte) (int, error) {
	<-c.gate
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes = append(c.writes, bytes.Clone(p))
	return len(p), c.err
}

func (c *gatedConn) Close() error { return nil }

func TestWritesGoOutTogether(t *testing.T) {
	t.Parallel()
	conn := &gatedConn{gate: make(chan struct{})}
	c := newCoalescer(conn)
	write := func(s string) {
		if n, err := c.Write([]byte(s)); n != len(s) || err != nil {
			t.Errorf("write: %d, %v", n, err)
		}
	}
	write("first")
	conn.gate <- struct{}{} // the sender has it
	write("second")
	write("third")
	write("fourth")
	close(conn.gate)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	all := bytes.Join(conn.writes, nil)
	if !bytes.HasPrefix([]byte("firstsecondthirdfourth"), all) {
		t.Errorf("written: %q", all)
	}
	if len(conn.writes) > 3 {
		t.Errorf("%d writes of four; want those that waited to go together: %q", len(conn.writes), conn.writes)
	}
	if _, err := c.Write([]byte("late")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after Close: %v", err)
	}
}

func TestEverythingWrittenArrivesInOrder(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	c := newCoalescer(near)
	const writes, size = 2000, 700 // more than the buffer, so that writers have to wait
	want := make([]byte, 0, writes*size)
	go func() {
		for i := range writes {
			if _, err := c.Write(bytes.Repeat([]byte{byte(i)}, size)); err != nil {
				t.Error(err)
			}
		}
	}()
	for i := range writes {
		want = append(want, bytes.Repeat([]byte{byte(i)}, size)...)
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(far, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got) {
		t.Error("what arrived is not what was written")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestWriteFailsAfterSendingHasFailed(t *testing.T) {
	t.Parallel()
	conn := &gatedConn{gate: make(chan struct{}), err: io.ErrClosedPipe}
	close(conn.gate)
	c := newCoalescer(conn)
	_, err := c.Write([]byte("x")) // is taken
	if err != nil {
		t.Fatal(err)
	}
	for err == nil { // until the sender has failed; a write that is too large waits for it
		_, err = c.Write(make([]byte, maxBuffer+1))
	}
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("write: %v; want why sending failed", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
