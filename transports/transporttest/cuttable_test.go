package transporttest_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
	"github.com/gotidings/tidings/transports/transporttest"
)

// cuttable is a connection to a memory broker that can be lost: the least that
// passes the tests of reconnection, so that they are known to be passable. It has
// no capability beyond the seam.
type cuttable struct {
	connect func() transports.Transport

	mu       sync.Mutex // guards what follows
	isClosed bool
	conn     transports.Transport // the current one, closed while it is cut
	restored chan struct{}        // closed when there is another, or never will be
}

var errCut = errors.New("the connection is cut")

func newCuttable(b *memory.Broker) *cuttable {
	c := &cuttable{connect: func() transports.Transport { return b.Connect() }}
	c.conn = c.connect()
	return c
}

func (c *cuttable) current() (conn transports.Transport, restored <-chan struct{}, isClosed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn, c.restored, c.isClosed
}

func (c *cuttable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.restored == nil {
		c.restored = make(chan struct{})
	}
	_ = c.conn.Close()
}

func (c *cuttable) restore() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.isClosed {
		c.conn = c.connect()
	}
	if c.restored != nil {
		close(c.restored)
		c.restored = nil
	}
}

func (c *cuttable) Close() error {
	c.mu.Lock()
	c.isClosed = true
	err := c.conn.Close()
	c.mu.Unlock()
	c.restore()
	return err
}

func (c *cuttable) Publish(topic string, messages ...*message.Message) error {
	return c.retry(func(conn transports.Transport) error { return conn.Publish(topic, messages...) }, func() <-chan struct{} {
		return messages[0].Context().Done()
	})
}

// retry calls fn with every new connection until it is not lost meanwhile.
func (c *cuttable) retry(fn func(transports.Transport) error, done func() <-chan struct{}) error {
	for {
		conn, restored, isClosed := c.current()
		err := fn(conn)
		if isClosed || !errors.Is(err, transports.ErrClosed) {
			return err
		}
		if restored == nil {
			continue // there is another already
		}
		select {
		case <-restored:
		case <-done():
			return context.Canceled
		}
	}
}

func (c *cuttable) Subscribe(ctx context.Context, s transports.Subscription) (<-chan *message.Message, error) {
	var in <-chan *message.Message
	subscribe := func() error {
		return c.retry(func(conn transports.Transport) (err error) {
			in, err = conn.Subscribe(ctx, s)
			return err
		}, ctx.Done)
	}
	if err := subscribe(); err != nil {
		return nil, err
	}
	tell := s.OnInterruption
	if tell == nil {
		tell = func(transports.Interruption) {}
	}
	out := make(chan *message.Message)
	go func() {
		defer close(out)
		for {
			for msg := range in {
				select {
				case out <- msg:
				case <-ctx.Done():
					msg.Nack()
				case <-msg.Context().Done(): // lost before it was received
				}
			}
			if ctx.Err() != nil {
				return
			}
			tell(transports.Interruption{Cause: errCut})
			if subscribe() != nil {
				return
			}
			tell(transports.Interruption{})
		}
	}()
	return out, nil
}

func TestConformanceOfATransportWithNothingButTheSeam(t *testing.T) {
	t.Parallel()
	const maxMessageBytes = 1 << 20
	b, err := memory.NewBroker(memory.Config{MaxMessageBytes: maxMessageBytes})
	if err != nil {
		t.Fatal(err)
	}
	const hidden = "hidden"
	transporttest.Run(t,
		transporttest.Harness{
			Open: func(*testing.T) transports.Transport { return newCuttable(b) },
			OpenCuttable: func(*testing.T) (tr transports.Transport, cut, restore func()) {
				c := newCuttable(b)
				return c, c.cut, c.restore
			},
		},
		transporttest.Features{
			MaxMessageBytes: maxMessageBytes,
			Lacks: map[transporttest.Feature]string{
				transporttest.BatchPublish: hidden, transporttest.DelayedPublish: hidden, transporttest.Requeue: hidden,
				transporttest.PoisonQueue: hidden, transporttest.Removal: hidden, transporttest.Ping: hidden,
				transporttest.Depth: hidden, transporttest.BackPressure: hidden,
				transporttest.DepthDetail: hidden,
			},
		})
}
