package rabbitmq

import (
	"net"
	"runtime"
	"sync"
)

// coalescer is a connection whose writes go out together: the client flushes after each
// message and each acknowledgement, and a system call for each of them is what limits
// it, and the broker, which wakes up for every packet. Writes are taken into a buffer
// that one goroutine sends; what comes while it sends is sent together next time, so
// nothing waits for company.
type coalescer struct {
	net.Conn

	mu     sync.Mutex // guards what follows
	change *sync.Cond // of any of them
	buffer []byte
	err    error // of sending: what Write returns from then on

	sender sync.WaitGroup
}

// maxBuffer is how much waits to be sent before Write blocks, in bytes.
const maxBuffer = 256 << 10

func newCoalescer(conn net.Conn) *coalescer {
	c := &coalescer{Conn: conn}
	c.change = sync.NewCond(&c.mu)
	c.sender.Go(c.send)
	return c
}

// Write takes p to be sent. A failure of sending is that of a later Write.
func (c *coalescer) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.buffer) > maxBuffer && c.err == nil {
		c.change.Wait()
	}
	if c.err != nil {
		return 0, c.err
	}
	c.buffer = append(c.buffer, p...)
	c.change.Broadcast()
	return len(p), nil
}

func (c *coalescer) send() {
	var sending []byte
	for {
		c.mu.Lock()
		for len(c.buffer) == 0 && c.err == nil {
			c.change.Wait()
		}
		c.mu.Unlock()
		runtime.Gosched() // those who are about to write come along
		c.mu.Lock()
		if c.err != nil {
			c.mu.Unlock()
			return
		}
		sending, c.buffer = c.buffer, sending[:0]
		c.change.Broadcast()
		c.mu.Unlock()

		if _, err := c.Conn.Write(sending); err != nil {
			c.fail(err)
			return
		}
		if cap(sending) > 2*maxBuffer { // after one large message
			sending = nil
		}
	}
}

func (c *coalescer) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	c.change.Broadcast()
}

// Close closes the connection; what is not sent by now is lost, as with any connection.
func (c *coalescer) Close() error {
	err := c.Conn.Close()
	c.fail(net.ErrClosed)
	c.sender.Wait()
	return err
}
