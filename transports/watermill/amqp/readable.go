package amqp

import (
	"cmp"
	"net"
	"time"

	wmamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	"github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/internal/frames"
)

const (
	defaultFrameSize   = 131072           // of the client
	defaultDialTimeout = 30 * time.Second // of the client
)

// readable makes a connection take messages with headers that the client can't read: they
// would end it, and every subscription with it. Over TLS the client makes the handshake
// itself, so nothing can be done there.
func readable(c wmamqp.ConnectionConfig) wmamqp.ConnectionConfig {
	uri, err := amqp091.ParseURI(c.AmqpURI)
	if err != nil || uri.Scheme != "amqp" {
		return c
	}
	var cfg amqp091.Config
	if c.AmqpConfig != nil {
		cfg = *c.AmqpConfig
	}
	dial := cfg.Dial
	if dial == nil {
		dial = amqp091.DefaultDial(cmp.Or(time.Duration(uri.ConnectionTimeout)*time.Millisecond, defaultDialTimeout))
	}
	cfg.Dial = func(network, addr string) (net.Conn, error) {
		conn, err := dial(network, addr)
		if err != nil {
			return nil, err
		}
		return frames.New(conn, cmp.Or(max(cfg.FrameSize, 0), defaultFrameSize)), nil
	}
	c.AmqpConfig = &cfg
	return c
}
