package eventstoretest

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// wire is a long way to a broker: what is sent arrives after a while, and not at all when the
// sender's machine is gone meanwhile.
type wire struct {
	url string

	mu      sync.Mutex // guards brokers
	brokers []net.Conn
}

const wireDelay = 15 * time.Millisecond

func newWire(t *testing.T, broker string) *wire {
	t.Helper()
	u, err := url.Parse(broker)
	if err != nil {
		t.Fatal(err)
	}
	address := u.Host
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // in a test
	if err != nil {
		t.Fatal(err)
	}
	u.Host = listener.Addr().String()
	w := &wire{url: u.String()}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		w.cut()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", address) //nolint:noctx // in a test
			if err != nil {
				_ = client.Close()
				continue
			}
			w.mu.Lock()
			w.brokers = append(w.brokers, server)
			w.mu.Unlock()
			serving.Go(func() { forward(server, client, wireDelay) })
			serving.Go(func() { forward(client, server, 0) })
		}
	})
	return w
}

// cut loses what is under way.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, conn := range w.brokers {
		_ = conn.Close()
	}
	w.brokers = nil
}

// forward copies until one of the connections is closed, and closes the other.
func forward(to io.WriteCloser, from io.ReadCloser, delay time.Duration) {
	defer func() {
		_ = to.Close()
		_ = from.Close()
	}()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		<-time.After(delay)
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}
