package main

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// Where the URLs are in what onServers returns.
const (
	databaseURL = 1
	brokerURL   = 3
)

// proxy is in front of a server, and can be slow or cut.
type proxy struct {
	listener net.Listener
	to       string
	running  sync.WaitGroup

	mu      sync.Mutex // guards what follows
	conns   map[net.Conn]struct{}
	down    bool
	delay   time.Duration // of each chunk to the server
	changed chan struct{} // closed when delay or down changes
}

// newProxy puts a proxy before the server of a URL.
func newProxy(t *testing.T, address *string) *proxy {
	t.Helper()
	u, err := url.Parse(*address)
	if err != nil {
		t.Fatal(err)
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, to: u.Host, conns: make(map[net.Conn]struct{}), changed: make(chan struct{})}
	u.Host = listener.Addr().String()
	*address = u.String()
	p.running.Go(p.accept)
	t.Cleanup(func() {
		_ = listener.Close() // ends accept
		p.cut()
		p.running.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		from, err := p.listener.Accept()
		if err != nil {
			return
		}
		var dialer net.Dialer
		to, err := dialer.DialContext(context.Background(), "tcp", p.to)
		if err != nil || !p.add(from, to) {
			_ = from.Close() // it is cut
			continue
		}
		p.running.Go(func() { p.copy(&slowWriter{p, to}, from) })
		p.running.Go(func() { p.copy(from, to) })
	}
}

func (p *proxy) add(from, to net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		_ = to.Close() // nothing was sent
		return false
	}
	p.conns[from], p.conns[to] = struct{}{}, struct{}{}
	return true
}

// copy copies until either end is closed.
func (p *proxy) copy(to io.WriteCloser, from io.ReadCloser) {
	_, _ = io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{from}) // without the splice of two connections
	_ = from.Close()
	_ = to.Close()
}

// slowWriter writes each chunk after the proxy's delay.
type slowWriter struct {
	p *proxy
	net.Conn
}

func (w *slowWriter) Write(chunk []byte) (int, error) {
	read := time.Now()
	for {
		w.p.mu.Lock()
		wait, changed := w.p.delay-time.Since(read), w.p.changed
		w.p.mu.Unlock()
		if wait <= 0 {
			return w.Conn.Write(chunk)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-changed:
		}
		timer.Stop()
	}
}

// slow lets each chunk that is sent to the server take so long, until it is told otherwise.
func (p *proxy) slow(delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = delay
	p.change()
}

// cut closes all connections, and those that come, until heal.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down, p.delay = true, 0
	for conn := range p.conns {
		_ = conn.Close() // it is cut
	}
	clear(p.conns)
	p.change()
}

func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}

// change wakes what waits, with mu held.
func (p *proxy) change() {
	close(p.changed)
	p.changed = make(chan struct{})
}
