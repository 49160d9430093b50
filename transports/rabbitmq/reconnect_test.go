package rabbitmq

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A broker that ends each connection soon after it was made, for whatever reason, is not
// asked for the next one all the time.
func TestConnectionThatDiesAtOnceIsMadeLessOften(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int64
		cfg := Config{URLs: []string{"amqp://broker/"}}.withDefaults()
		cfg.Dial = func(context.Context, string, string) (net.Conn, error) {
			dials.Add(1)
			client, broker := net.Pipe()
			go func() {
				handshake(broker)
				go func() { _, _ = io.Copy(io.Discard, broker) }()
				time.Sleep(10 * time.Millisecond)
				_ = broker.Close()
			}()
			return client, nil
		}
		nodes, l, err := parseNodes(cfg.URLs)
		if err != nil {
			t.Fatal(err)
		}
		c := newConnection("test", cfg, nodes, l)
		defer c.close()
		if err := c.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := dials.Load(); n < 5 || n > 40 { // the delays are random
			t.Errorf("%d connections in a minute; want some", n)
		}
	})
}
