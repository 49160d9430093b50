package outboxtest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// destination is a transport of which a test decides what becomes of a batch.
type destination struct {
	mu      sync.Mutex // guards what follows
	down    chan struct{}
	refused map[string]error // by id of the event
	got     []transports.Outgoing
	calls   int
	arrived chan struct{} // a token for each batch that arrived
}

func newDestination() *destination {
	return &destination{refused: make(map[string]error), arrived: make(chan struct{}, 1)}
}

var errRefused = errors.New("refused")

func (d *destination) PublishBatch(ctx context.Context, batch []transports.Outgoing) error {
	d.mu.Lock()
	d.calls++
	down := d.down
	d.mu.Unlock()
	if down != nil { // as a transport does whose broker is away
		select {
		case <-down:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var failures []transports.PublishFailure
	for i, out := range batch {
		if err := d.refused[out.Message.UUID]; err != nil {
			failures = append(failures, transports.PublishFailure{Index: i, Err: err})
			continue
		}
		d.got = append(d.got, out)
	}
	select {
	case d.arrived <- struct{}{}:
	default:
	}
	return transports.BatchError(len(batch), failures)
}

func (d *destination) Publish(topic string, messages ...*message.Message) error {
	return errors.New("the relay sends batches")
}

func (*destination) Subscribe(context.Context, transports.Subscription) (<-chan *message.Message, error) {
	return nil, transports.ErrUnsupported
}

func (*destination) Close() error { return nil }

// take makes the destination go down, or come back.
func (d *destination) setDown(down bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case down && d.down == nil:
		d.down = make(chan struct{})
	case !down && d.down != nil:
		close(d.down)
		d.down = nil
	}
}

func (d *destination) refuse(id string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused[id] = err
}

func (d *destination) ids() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	ids := make([]string, len(d.got))
	for i, out := range d.got {
		ids[i] = out.Message.UUID
	}
	return ids
}

func (d *destination) attempts() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls
}

// await waits until so many events have arrived.
func (d *destination) await(tb testing.TB, n int) []transports.Outgoing {
	tb.Helper()
	until(tb, "the events arrive", func() bool { return len(d.ids()) >= n })
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]transports.Outgoing(nil), d.got...)
}
