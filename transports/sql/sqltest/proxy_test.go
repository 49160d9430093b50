package sqltest

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy stands before a server, so that its connections can be taken away, or be slow.
type proxy struct {
	listener net.Listener
	target   string
	delay    time.Duration // each way, however much is under way
	serving  sync.WaitGroup

	mu    sync.Mutex // guards what follows
	cut   bool
	conns map[net.Conn]bool
}

// newProxy returns a proxy that the test's end stops.
func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	return newSlowProxy(t, target, 0)
}

// newSlowProxy returns a proxy that delays everything, by half a round trip each way.
func newSlowProxy(t *testing.T, target string, roundTrip time.Duration) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is ended by Close
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, target: target, delay: roundTrip / 2, conns: make(map[net.Conn]bool)}
	p.serving.Go(p.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		p.setCut(true)
		p.serving.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.serving.Go(func() { p.serve(conn) })
	}
}

func (p *proxy) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	if !p.add(conn) {
		return
	}
	defer p.remove(conn)
	server, err := net.Dial("tcp", p.target) //nolint:noctx // on this machine
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	if !p.add(server) {
		return
	}
	defer p.remove(server)
	var copying sync.WaitGroup
	copying.Go(func() {
		p.copy(server, conn)
		_ = server.Close()
	})
	p.copy(conn, server)
	_ = conn.Close()
	copying.Wait()
}

// copy copies until either side ends. What was read is written a delay later, and more is
// read meanwhile.
func (p *proxy) copy(to, from net.Conn) {
	if p.delay == 0 {
		_, _ = io.Copy(to, from)
		return
	}
	type piece struct {
		due  time.Time
		data []byte
	}
	pieces := make(chan piece, 1000)
	var writing sync.WaitGroup
	writing.Go(func() {
		for piece := range pieces {
			<-time.After(time.Until(piece.due))
			_, _ = to.Write(piece.data) // where it fails, reading ends as well
		}
	})
	for {
		data := make([]byte, 64<<10)
		n, err := from.Read(data)
		if err != nil {
			break
		}
		pieces <- piece{time.Now().Add(p.delay), data[:n]}
	}
	close(pieces)
	writing.Wait()
}

func (p *proxy) add(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.cut {
		p.conns[conn] = true
	}
	return !p.cut
}

func (p *proxy) remove(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
}

// setCut ends all connections and refuses new ones, or takes new ones again.
func (p *proxy) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	for conn := range p.conns {
		_ = conn.Close()
	}
}
