package transports

import (
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"
)

// AsPublisher makes a Watermill publisher of a transport that is shared. A
// Transport is a message.Publisher already, and Watermill's router closes the
// publisher of a handler when that handler stops; closing this one leaves the
// transport open. After Close, Publish returns [ErrClosed].
func AsPublisher(t Transport) message.Publisher { return &publisher{transport: t} }

type publisher struct {
	transport Transport
	closed    atomic.Bool
}

func (p *publisher) Publish(topic string, messages ...*message.Message) error {
	if p.closed.Load() {
		return ErrClosed
	}
	return p.transport.Publish(topic, messages...)
}

func (p *publisher) Close() error {
	p.closed.Store(true)
	return nil
}
