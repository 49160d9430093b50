package rabbitmq

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/gotidings/tidings/transports"
)

// silenced passes on what is written to it until it is cut.
type silenced struct {
	io.Writer
	cut <-chan struct{}
}

func (s silenced) Write(p []byte) (int, error) {
	select {
	case <-s.cut:
		return len(p), nil
	default:
		return s.Writer.Write(p)
	}
}

// halfOpen is a proxy that passes on nothing once it is cut, so that the broker does not hear
// that the client has closed its connection.
func halfOpen(t *testing.T, target string) (url string, cut chan struct{}) {
	t.Helper()
	cut = make(chan struct{})
	return newProxy(t, target, func(server, client net.Conn) {
		_, _ = io.Copy(silenced{server, cut}, client)
		<-cut
		_, _ = io.Copy(io.Discard, server) // until the broker ends it
	}, func(client, server net.Conn) { _, _ = io.Copy(silenced{client, cut}, server) }), cut
}

// The broker keeps an ephemeral subscription for a client that is gone until it misses
// heartbeats; then the name is free.
func TestEphemeralNameOfAHalfOpenConnection(t *testing.T) {
	t.Parallel()
	url := brokerURL(t)
	through, cut := halfOpen(t, url)
	open := func(url string) *Transport {
		tr := mustOpen(t, Config{URLs: []string{url}, Heartbeat: time.Second})
		t.Cleanup(func() { _ = tr.Close() })
		return tr
	}
	s := transports.Subscription{Name: uuid.NewString(), Topics: []string{"a"}, Concurrency: 1, Ephemeral: true}
	first := open(through)
	subscribeAt(t, first, s)
	close(cut)
	var closing sync.WaitGroup
	closing.Go(func() { _ = first.Close() })
	defer closing.Wait()

	holder := open(url)
	subscribeAt(t, holder, s)
	_, err := open(url).Subscribe(t.Context(), s)
	if fault, ok := errors.AsType[*TopologyError](err); !ok || fault.Kind != "queue" {
		t.Errorf("subscribe under a name that is taken: %v; want what is wrong with the queue", err)
	}
}
