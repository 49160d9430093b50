package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/gotidings/tidings/transports"
)

// QueueType is the kind of a subscription's queue.
type QueueType string

const (
	// Quorum queues are replicated and count deliveries: the default.
	// https://www.rabbitmq.com/docs/quorum-queues
	Quorum QueueType = "quorum"

	// Classic queues live on one node. The broker does not count deliveries of
	// their messages, so one that ends its process comes back for ever.
	Classic QueueType = "classic"
)

// TopologyMode says what the transport does about exchanges, queues and bindings.
type TopologyMode string

const (
	// Declare makes what is missing: the default.
	Declare TopologyMode = "declare"

	// Verify makes nothing and fails when an exchange or a queue is missing. The
	// protocol can't tell whether bindings are there.
	Verify TopologyMode = "verify"

	// Assume makes and looks at nothing. Ephemeral subscriptions and the locks of poison
	// queues, which last as long as a connection, are made all the same.
	Assume TopologyMode = "none"
)

// Unroutable says what becomes of an event that no queue is bound for.
type Unroutable string

const (
	// Count drops it, as a topic exchange does, calls Config.OnUnroutable, and logs the
	// first of each topic: the default.
	Count Unroutable = "count"

	// Refuse makes Publish return [ErrUnroutable].
	Refuse Unroutable = "error"

	// Keep puts it into the queue "tidings.unrouted", and counts it as well.
	Keep Unroutable = "keep"
)

// Config configures [Open]. URLs is required; the rest has defaults.
type Config struct {
	// URLs are those of the cluster's nodes, tried in turn until one answers:
	// "amqp://user:password@host:5672/vhost", or amqps for TLS. User, password and
	// vhost are those of the first. They have no parameters here; the URL that
	// transports.Open takes may have, see the package's documentation.
	URLs []string

	// Exchange is the durable topic exchange to publish to, without a slash. "" means
	// "events". The names of queues and of the other exchanges begin with it and a slash,
	// except with the default, so several environments can share a vhost.
	Exchange string

	// QueueType is that of durable subscriptions. "" means [Quorum]. A queue that
	// exists can't change its type.
	QueueType QueueType

	// Topology says whether to declare. "" means [Declare].
	Topology TopologyMode

	// Unroutable says what becomes of an event that nobody subscribes to. "" means
	// [Count].
	Unroutable Unroutable

	// OnUnroutable, if set, is called for each event that no queue was bound for. It
	// must not block.
	OnUnroutable func(topic string)

	// MaxMessageBytes is the largest payload that Publish takes, in bytes. 0 means
	// [transports.DefaultMaxMessageBytes].
	MaxMessageBytes int

	// PublishChannels is how many channels share the publishing. 0 means 2.
	PublishChannels int

	// ConfirmWindow is the most messages of one channel that the broker has not yet
	// confirmed. 0 means 256.
	ConfirmWindow int

	// ConnectTimeout bounds Open, and each later attempt to connect. 0 means 10 s.
	ConnectTimeout time.Duration

	// Heartbeat is how often both sides say that they are there; a side that is silent
	// for two of them is taken for dead. 0 means 10 s.
	Heartbeat time.Duration

	// Name begins the names of the connections on the broker's management page. ""
	// means "tidings".
	Name string

	// TLS is used for amqps URLs. nil means to verify the server by the system's
	// certificate authorities.
	TLS *tls.Config

	// External authenticates by the client certificate of TLS, SASL EXTERNAL, in place
	// of user and password.
	External bool

	// Dial connects to an address; TLS and AMQP come on top. nil means a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// Logger takes what an operator should know: lost connections, refused
	// declarations, events without a queue. Never payloads or passwords. nil means to
	// discard.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	setDefault := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	setDefault(&c.MaxMessageBytes, transports.DefaultMaxMessageBytes)
	setDefault(&c.PublishChannels, 2)
	setDefault(&c.ConfirmWindow, 256)
	if c.Exchange == "" {
		c.Exchange = defaultExchange
	}
	if c.QueueType == "" {
		c.QueueType = Quorum
	}
	if c.Topology == "" {
		c.Topology = Declare
	}
	if c.Unroutable == "" {
		c.Unroutable = Count
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 10 * time.Second
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 10 * time.Second
	}
	if c.Name == "" {
		c.Name = "tidings"
	}
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// maxExchangeName leaves room for the names of subscriptions behind it, see names.
const maxExchangeName = 127

// validate returns every fault of a configuration with defaults in one joined error.
func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if len(c.URLs) == 0 {
		fault("URLs is empty; it takes at least one, such as %q", "amqp://localhost:5672/")
	}
	if len(c.Exchange) > maxExchangeName {
		fault("Exchange has %d bytes; at most %d are allowed, because queue names begin with it", len(c.Exchange), maxExchangeName)
	}
	if strings.Contains(c.Exchange, slash) {
		fault("Exchange is %q; it must not contain %q, which follows it in queue names", c.Exchange, slash)
	}
	if c.QueueType != Quorum && c.QueueType != Classic {
		fault("QueueType is %q; it takes %q or %q", c.QueueType, Quorum, Classic)
	}
	if c.Topology != Declare && c.Topology != Verify && c.Topology != Assume {
		fault("Topology is %q; it takes %q, %q or %q", c.Topology, Declare, Verify, Assume)
	}
	if c.Unroutable != Count && c.Unroutable != Refuse && c.Unroutable != Keep {
		fault("Unroutable is %q; it takes %q, %q or %q", c.Unroutable, Count, Refuse, Keep)
	}
	if c.MaxMessageBytes < 0 {
		fault("MaxMessageBytes is %d; it takes at least 1, or 0 for the default", c.MaxMessageBytes)
	}
	if c.PublishChannels < 0 {
		fault("PublishChannels is %d; it takes at least 1, or 0 for the default", c.PublishChannels)
	}
	if c.ConfirmWindow < 0 {
		fault("ConfirmWindow is %d; it takes at least 1, or 0 for the default", c.ConfirmWindow)
	}
	if c.ConnectTimeout < 0 {
		fault("ConnectTimeout is %v; it must not be negative", c.ConnectTimeout)
	}
	if c.Heartbeat < time.Second {
		fault("Heartbeat is %v; it takes at least 1s, or 0 for the default", c.Heartbeat)
	}
	return errors.Join(faults...)
}

// withTimeout bounds ctx by ConnectTimeout.
func (c Config) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.ConnectTimeout, fmt.Errorf("no broker answered within %v", c.ConnectTimeout))
}

// tlsTo returns the TLS configuration for a host.
func (c Config) tlsTo(host string) *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLS != nil {
		cfg = c.TLS.Clone()
	}
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	return cfg
}
