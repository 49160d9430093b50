package rabbitmq

import (
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"
)

// methodProxy is a proxy to a broker that looks at the methods on their way, and may change them.
type methodProxy struct {
	url string

	mu     sync.Mutex                                          // guards what follows, and the calls of change
	opened int                                                 // channels
	change func(channel uint16, method uint32, payload []byte) // called with what the broker sends
}

// Methods: class and method (AMQP 0-9-1, section 1.2). An acknowledgement and a nack have the same
// arguments: a tag, and a byte of flags.
const (
	channelOpen    = 20<<16 | 10
	channelCloseOK = 20<<16 | 41
	basicAck       = 60<<16 | 80
	basicNack      = 60<<16 | 120
)

func newMethodProxy(t *testing.T, target string) *methodProxy {
	t.Helper()
	f := &methodProxy{}
	f.url = newProxy(t, target, func(server, client net.Conn) {
		_, err := io.CopyN(server, client, 8) // the protocol's header
		for err == nil {
			err = f.pass(server, client, f.sent)
		}
	}, func(client, server net.Conn) {
		var err error
		for err == nil {
			err = f.pass(client, server, f.received)
		}
	})
	return f
}

// newProxy returns the URL of a proxy to a broker. up copies what a client sends and down what
// the broker sends, each until one side of the connection is closed.
func newProxy(t *testing.T, target string, up, down func(to, from net.Conn)) string {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	broker := u.Host
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // in a test
	if err != nil {
		t.Fatal(err)
	}
	u.Host = listener.Addr().String()
	var serving sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", broker) //nolint:noctx // in a test
			if err != nil {
				_ = client.Close()
				continue
			}
			serving.Go(func() {
				up(server, client)
				_ = server.Close()
			})
			serving.Go(func() {
				down(client, server)
				_ = client.Close()
			})
		}
	})
	return u.String()
}

// pass passes a frame on (AMQP 0-9-1, section 4.2.3): its type, channel and size, the payload, an end mark.
func (f *methodProxy) pass(to io.Writer, from io.Reader, look func(channel uint16, payload []byte)) error {
	head := make([]byte, 7)
	if _, err := io.ReadFull(from, head); err != nil {
		return err
	}
	frame := slices.Concat(head, make([]byte, binary.BigEndian.Uint32(head[3:])+1))
	if _, err := io.ReadFull(from, frame[len(head):]); err != nil {
		return err
	}
	const method = 1
	if frame[0] == method {
		look(binary.BigEndian.Uint16(frame[1:]), frame[len(head):])
	}
	_, err := to.Write(frame)
	return err
}

func (f *methodProxy) sent(_ uint16, payload []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if binary.BigEndian.Uint32(payload) == channelOpen {
		f.opened++
	}
}

func (f *methodProxy) received(channel uint16, payload []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.change != nil {
		f.change(channel, binary.BigEndian.Uint32(payload), payload)
	}
}

// channels returns how many channels were opened so far.
func (f *methodProxy) channels() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.opened
}
