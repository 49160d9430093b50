package rabbitmq

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// gate is a proxy to a broker, whose answers can be held back.
type gate struct {
	url  string
	door sync.RWMutex // locked while the broker's answers wait
}

func newGate(t *testing.T, target string) *gate {
	t.Helper()
	g := &gate{}
	g.url = newProxy(t, target,
		func(server, client net.Conn) { _, _ = io.Copy(server, client) },
		func(client, server net.Conn) { _, _ = io.Copy(behind{client, &g.door}, server) })
	return g
}

// behind writes while the door is open.
type behind struct {
	io.Writer
	door *sync.RWMutex
}

func (b behind) Write(p []byte) (int, error) {
	b.door.RLock()
	defer b.door.RUnlock()
	return b.Writer.Write(p)
}

// All messages of a batch are at the broker before it has confirmed the first, and the call
// returns when it has confirmed them.
func TestRequeueBatchIsPipelined(t *testing.T) {
	t.Parallel()
	g := newGate(t, brokerURL(t))
	b := newBench(t, nil)
	s := b.sub("s", 1)
	ctx, stop := contextWithStop(t)
	ch, err := b.Subscribe(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	for range ch { // nothing comes; it ends when the consumer has
		continue
	}

	cfg := b.cfg
	cfg.URLs, cfg.PublishChannels = []string{g.url}, 1
	slow := mustOpen(t, cfg)
	defer func() { _ = slow.Close() }()
	if err := slow.RequeueBatch(t.Context(), s.Name, newMessage(t, "first")); err != nil { // the channel is made
		t.Fatal(err)
	}
	const n = 100
	var batch []*message.Message
	for i := range n {
		batch = append(batch, newMessage(t, fmt.Sprint(i)))
	}
	g.door.Lock()
	done := make(chan error, 1)
	go func() { done <- slow.RequeueBatch(t.Context(), s.Name, batch...) }()
	func() {
		defer g.door.Unlock()
		b.eventually("the whole batch is at the broker", func() bool { return b.ready(s.Name) == n+1 })
		select {
		case err := <-done:
			t.Errorf("it returned before the broker's answer: %v", err)
		default:
		}
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	ch = b.subscribe(b.Transport, s)
	b.ack(ch, "first")
	for i := range n {
		b.ack(ch, fmt.Sprint(i))
	}
}

// A batch for a subscription that does not exist fails as a single message does, and none of
// it goes anywhere else.
func TestRequeueBatchToNobody(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	for name, subscription := range map[string]string{"unknown": b.id + ".nobody", "too long": strings.Repeat("x", 300)} {
		err := b.RequeueBatch(t.Context(), subscription, newMessage(t, "1"), newMessage(t, "2"))
		if !errors.Is(err, transports.ErrNoSubscription) {
			t.Errorf("%s: %v; want ErrNoSubscription", name, err)
		}
	}
	if err := b.RequeueBatch(t.Context(), b.id+".nobody"); err != nil {
		t.Errorf("no messages: %v", err)
	}
}
