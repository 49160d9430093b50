package faults_test

import (
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/gotidings/tidings/internal/testserver"
)

// proxy stands between a client and a broker and cuts their connections.
type proxy struct{ *toxiproxy.Proxy }

// startProxy starts a proxy in front of a host and port, until the test ends.
func startProxy(t *testing.T, upstream string) proxy {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	listen := net.JoinHostPort("127.0.0.1", strconv.Itoa(testserver.FreePort(t)))
	p := proxy{toxiproxy.NewProxy(server, t.Name(), listen, upstream)}
	p.restore(t)
	t.Cleanup(p.cut)
	return p
}

// cut closes every connection, whatever is under way, and refuses new ones.
func (p proxy) cut() { p.Stop() }

// restore lets connections through again, at the address that it had. A child that another
// test is just starting holds the old listener until it runs its own program.
func (p proxy) restore(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		err := p.Start()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("proxy: %v", err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func TestProxyCuts(t *testing.T) {
	t.Parallel()
	upstream, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it does not wait
	if err != nil {
		t.Fatal(err)
	}
	echoed := make(chan struct{})
	t.Cleanup(func() {
		_ = upstream.Close()
		<-echoed
	})
	go func() {
		defer close(echoed)
		for {
			conn, err := upstream.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(conn, conn) // one connection at a time is enough
			_ = conn.Close()
		}
	}()

	p := startProxy(t, upstream.Addr().String())
	var dialer net.Dialer
	for range 2 {
		conn, err := dialer.DialContext(t.Context(), "tcp", p.Listen)
		if err != nil {
			t.Fatal(err)
		}
		var got [2]byte
		_, err = conn.Write([]byte("hi"))
		if err == nil {
			_, err = io.ReadFull(conn, got[:])
		}
		if err != nil || string(got[:]) != "hi" {
			t.Fatalf("through the proxy: %q, %v", got, err)
		}
		p.cut()
		if n, err := conn.Read(got[:]); err == nil {
			t.Errorf("read %d bytes from a connection that was cut", n)
		}
		_ = conn.Close()
		for deadline := time.Now().Add(2 * time.Minute); ; { // see restore
			conn, err := dialer.DialContext(t.Context(), "tcp", p.Listen)
			if err != nil {
				break
			}
			_ = conn.Close()
			if time.Now().After(deadline) {
				t.Fatal("new connections while they are cut")
			}
		}
		p.restore(t)
	}
}
