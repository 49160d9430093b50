package testserver

import (
	"context"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// FreePort returns a port of 127.0.0.1 that nobody listens on.
//
// It is below the range from which systems take the ports of outgoing connections:
// while a server is down, a client that dials its port from there would, once in some
// ten thousand times, be connected with itself, and hold the port that the server
// wants back.
func FreePort(tb testing.TB) int {
	tb.Helper()
	const low, high = 10_000, 30_000
	const tries = 1000
	var listener net.ListenConfig
	for range tries {
		port := low + rand.IntN(high-low)
		l, err := listener.Listen(context.Background(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			tb.Fatal(err)
		}
		return port
	}
	tb.Fatalf("no free port in %d tries", tries)
	return 0
}
