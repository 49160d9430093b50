package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/internal/frames"
)

// defaultFrameSize is the broker's own: https://www.rabbitmq.com/docs/configure, frame_max
const defaultFrameSize = 131072

// closeTimeout is for the goodbye; a broker that does not answer it is not waited for.
const closeTimeout = 3 * time.Second

// link is a connection with the signals of the client, which are asked for before
// anybody uses it, so that none is missed.
type link struct {
	*amqp.Connection
	socket net.Conn
	lost   chan *amqp.Error
	block  chan amqp.Blocking
}

// dialFirst tries every node until one answers or ConnectTimeout is over. What no further
// try can fix ends it at once: a wrong password, or certificates that no node accepts.
func (c *connection) dialFirst(ctx context.Context) (*link, error) {
	ctx, cancel := c.cfg.withTimeout(ctx)
	defer cancel()
	var faults []error
	for delay := firstDelay; ; delay = min(2*delay, time.Second) {
		round := make([]error, 0, len(c.nodes))
		for range c.nodes {
			conn, err := c.dial(ctx)
			if err == nil {
				return conn, nil
			}
			if refused, ok := errors.AsType[*amqp.Error](err); ok && !refused.Recover && refusedLogin(refused) {
				return nil, err
			}
			round = append(round, err)
		}
		if !slices.ContainsFunc(round, func(err error) bool { return !wrongCertificate(err) }) {
			return nil, errors.Join(round...)
		}
		if faults == nil || ctx.Err() == nil { // the end of ctx says less than what went before
			faults = round
		}
		if !sleep(ctx, delay) {
			return nil, fmt.Errorf("%w; gave up: %w", errors.Join(faults...), context.Cause(ctx))
		}
	}
}

// refusedLogin reports whether the broker knows us and does not want us: a wrong
// password, or a vhost that is missing or forbidden.
func refusedLogin(err *amqp.Error) bool {
	return err.Code == amqp.AccessRefused || err.Code == amqp.NotAllowed
}

// wrongCertificate reports whether a TLS handshake has failed for a reason that stays: our
// side does not accept the server's certificate, the server sent an alert about ours, or
// it does not speak TLS.
func wrongCertificate(err error) bool {
	if _, ours := errors.AsType[*tls.CertificateVerificationError](err); ours {
		return true
	}
	if _, noTLS := errors.AsType[tls.RecordHeaderError](err); noTLS {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error" // crypto/tls: an alert that was received
}

// dial connects to the next node.
func (c *connection) dial(ctx context.Context) (*link, error) {
	target := c.nodes[c.next%len(c.nodes)]
	c.next++
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ConnectTimeout)
	defer cancel()
	l, err := c.connect(ctx, target)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", target.addr, err)
	}
	return l, nil
}

// connect connects to a node and logs in, within ctx.
func (c *connection) connect(ctx context.Context, target node) (_ *link, err error) {
	socket, err := c.cfg.Dial(ctx, "tcp", target.addr)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = socket.Close() // it is of no use
		}
	}()
	// The handshakes end with ctx; the client takes the deadline away afterwards.
	deadline, _ := ctx.Deadline()
	if err := socket.SetDeadline(deadline); err != nil {
		return nil, err
	}
	raw := socket
	unhook := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer unhook()
	if target.tls {
		encrypted := tls.Client(socket, c.cfg.tlsTo(target.host))
		if err := encrypted.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		socket = encrypted
	}
	in := frames.New(socket, defaultFrameSize)
	socket = newCoalescer(in)
	conn, err := amqp.Open(socket, c.clientConfig())
	if err != nil {
		return nil, errors.Join(err, in.Err()) // a server that refuses a certificate says so only when it is read
	}
	if !unhook() {
		return nil, errors.Join(context.Cause(ctx), conn.CloseDeadline(time.Now()))
	}
	in.SetMaxFrame(conn.Config.FrameSize)
	// The client sets such a deadline whenever it has read something, which a broker that
	// falls silent now never lets it.
	if err := socket.SetReadDeadline(time.Now().Add(3 * conn.Config.Heartbeat / 2)); err != nil {
		return nil, errors.Join(err, conn.CloseDeadline(time.Now()))
	}
	return &link{
		Connection: conn, socket: socket,
		lost:  conn.NotifyClose(make(chan *amqp.Error, 1)),
		block: conn.NotifyBlocked(make(chan amqp.Blocking, 1)),
	}, nil
}

// clientConfig is what the client is told of a connection.
func (c *connection) clientConfig() amqp.Config {
	cfg := amqp.Config{
		SASL:       []amqp.Authentication{&amqp.PlainAuth{Username: c.login.user, Password: c.login.password}},
		Vhost:      c.login.vhost,
		Heartbeat:  c.cfg.Heartbeat,
		FrameSize:  defaultFrameSize,
		Locale:     "en_US",
		Properties: amqp.NewConnectionProperties(),
	}
	if c.cfg.External {
		cfg.SASL = []amqp.Authentication{&amqp.ExternalAuth{}}
	}
	cfg.Properties.SetClientConnectionName(c.cfg.Name + " " + c.role)
	return cfg
}

// goodbye closes the connection. The client's own deadline is not enough: each heartbeat
// of the broker puts it off, and one that is short of memory answers nothing else.
func (l *link) goodbye() {
	defer time.AfterFunc(closeTimeout, func() { _ = l.socket.Close() }).Stop()
	_ = l.CloseDeadline(time.Now().Add(closeTimeout)) // it may be lost already
}
