package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

// Transport carries messages by RabbitMQ. Make one with [Open].
type Transport struct {
	cfg    Config
	names  names
	log    *slog.Logger
	pub    *connection // to publish; never blocked by a consumer, whose socket may be full
	con    *connection // to consume and to look after poison queues; made when it is needed
	out    publisher
	warned unroutedTopics

	removedExpiry   time.Duration // how long a removal is known
	consumerTimeout time.Duration // of every consumer, for tests; 0 means the broker's, and orderedTimeout

	delays     onceFlag  // whether the delay queues are declared
	oldDiscard sync.Once // its removal

	mu        sync.Mutex // guards what follows
	closed    bool
	consumers map[*consumer]struct{}
	ephemeral map[string]struct{} // names of ephemeral subscriptions: the broker would let us share them
	working   sync.WaitGroup      // consumers
}

var (
	_ transports.Transport           = (*Transport)(nil)
	_ transports.BatchPublisher      = (*Transport)(nil)
	_ transports.NotifiedSubscriber  = (*Transport)(nil)
	_ transports.Requeuer            = (*Transport)(nil)
	_ transports.BatchRequeuer       = (*Transport)(nil)
	_ transports.PoisonQueue         = (*Transport)(nil)
	_ transports.SubscriptionRemover = (*Transport)(nil)
	_ transports.Pinger              = (*Transport)(nil)
	_ transports.DepthReporter       = (*Transport)(nil)
	_ transports.SystemNamer         = (*Transport)(nil)
	_ transports.ArgumentDescriber   = (*Transport)(nil)
	_ transports.DelayLimiter        = (*Transport)(nil)
)

// Open connects to a broker and declares the exchanges. It returns every fault of cfg
// in one error, and fails when no broker has answered within ConnectTimeout or one has
// refused the login. From then on the transport connects anew for as long as it takes,
// whenever the connection is lost.
func Open(ctx context.Context, cfg Config) (*Transport, error) {
	cfg = cfg.withDefaults()
	nodes, l, err := parseNodes(cfg.URLs)
	if err := errors.Join(cfg.validate(), err); err != nil {
		return nil, fmt.Errorf("rabbitmq: %w", err)
	}
	t := &Transport{
		cfg: cfg, names: namesOf(cfg.Exchange), log: cfg.Logger,
		pub: newConnection("publish", cfg, nodes, l), con: newConnection("consume", cfg, nodes, l),
		removedExpiry: removedExpiry, delays: onceFlag{turn: newTurn()}, consumers: make(map[*consumer]struct{}), ephemeral: make(map[string]struct{}),
	}
	ctx, cancel := cfg.withTimeout(ctx)
	defer cancel()
	if err = t.pub.start(ctx); err == nil {
		err = t.pub.run(ctx, t.declareExchanges)
	}
	if err != nil {
		t.pub.close()
		return nil, fmt.Errorf("rabbitmq: %w", err)
	}
	t.out.start(t.pub, cfg, t.declareExchanges, t.declareAgain)
	return t, nil
}

// Publish sends messages to a topic. It returns when the broker has confirmed them, so
// when every queue that they are for has them on disk, on a majority of its nodes for
// quorum queues. It waits while there is no connection or the broker is short of
// resources; on a lost connection, what is in doubt is sent again with the same id. What a
// queue refuses is tried 5 times more, over half a minute.
//
// Errors are [transports.ErrTooLarge] for a payload over MaxMessageBytes or metadata
// over a frame (128 KiB in all), [ErrUnroutable] under [Refuse], and why the context
// ended.
func (t *Transport) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	batch := make([]transports.Outgoing, len(messages))
	for i, msg := range messages {
		batch[i] = transports.Outgoing{Topic: topic, Message: msg}
	}
	return t.publish(messages[0].Context(), batch, true)
}

// PublishBatch is Publish for messages of several topics. Delays are rounded up to
// whole seconds, 30 days at most.
func (t *Transport) PublishBatch(ctx context.Context, batch []transports.Outgoing) error {
	if len(batch) == 0 {
		return nil
	}
	return t.publish(ctx, batch, false)
}

// publish is both. A caller that takes its messages back after an error, which Publish
// has to allow, may write to a payload that is still being sent: copy says so.
func (t *Transport) publish(ctx context.Context, batch []transports.Outgoing, copyPayload bool) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if t.isClosed() {
		return closedError("rabbitmq: publish")
	}
	results := make([]error, len(batch))
	messages := make([]outgoing, 0, len(batch))
	index := make([]int, 0, len(batch)) // of messages in batch
	frameSize := t.pub.frameSize()
	delayed := false
	for i, b := range batch {
		m, err := t.prepare(b, frameSize, copyPayload)
		if err != nil {
			results[i] = err
			continue
		}
		delayed = delayed || b.Delay > 0
		messages, index = append(messages, m), append(index, i)
	}
	if delayed {
		if err := t.ensureDelays(ctx); err != nil {
			return err
		}
	}
	if len(messages) > 0 {
		for i, err := range t.send(ctx, messages) {
			if errors.Is(err, errReturned) {
				err = t.unroutable(ctx, batch[index[i]].Topic, messages[i])
			}
			results[index[i]] = err
		}
	}
	return failuresOf(results)
}

// prepare makes the AMQP message of an event.
func (t *Transport) prepare(b transports.Outgoing, frameSize int, copyPayload bool) (outgoing, error) {
	if err := transports.ValidateTopic(b.Topic); err != nil {
		return outgoing{}, err
	}
	if len(b.Topic) > maxShortString {
		return outgoing{}, fmt.Errorf("%w: the topic has %d bytes, limit %d", transports.ErrTooLarge, len(b.Topic), maxShortString)
	}
	if size := len(b.Message.Payload); size > t.cfg.MaxMessageBytes {
		return outgoing{}, transports.TooLarge(size, t.cfg.MaxMessageBytes)
	}
	m := outgoing{exchange: t.cfg.Exchange, key: b.Topic, msg: encode(transports.ForPublish(b.Message))}
	if copyPayload {
		m.msg.Body = append(make([]byte, 0, len(m.msg.Body)), m.msg.Body...)
	}
	if err := checkHeaders(m.msg.Headers, frameSize); err != nil {
		return outgoing{}, err
	}
	if b.Delay > 0 {
		if err := t.names.delayBy(&m, b.Delay); err != nil {
			return outgoing{}, err
		}
	}
	return m, nil
}

// ensureDelays declares the delay queues when they are needed for the first time.
func (t *Transport) ensureDelays(ctx context.Context) error {
	return t.delays.do(ctx, func() error { return t.pub.run(ctx, t.declareDelays) })
}

// Ping asks the broker for the exchange.
func (t *Transport) Ping(ctx context.Context) error {
	if t.isClosed() {
		return closedError("rabbitmq: ping")
	}
	return t.pub.run(ctx, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclarePassive(t.cfg.Exchange, amqp.ExchangeTopic, true, false, false, false, nil)
	})
}

// MessagingSystem returns "rabbitmq".
func (t *Transport) MessagingSystem() string { return "rabbitmq" }

func (t *Transport) isClosed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}

// Close ends every subscription at once and closes the connections. What is unsettled
// goes back; what is not confirmed fails with [transports.ErrClosed].
func (t *Transport) Close() error {
	t.mu.Lock()
	t.closed = true
	consumers := make([]*consumer, 0, len(t.consumers))
	for c := range t.consumers {
		consumers = append(consumers, c)
	}
	t.mu.Unlock()
	for _, c := range consumers {
		c.end(transports.ErrClosed)
	}
	// The broker is to take what is settled before the connection is closed.
	ended := make(chan struct{})
	go func() {
		t.working.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(closeTimeout): // it does not answer
	}
	t.con.close()
	t.pub.close()
	<-ended
	return nil
}

// onceFlag is a sync.Once for what can fail, and is done again then.
type onceFlag struct {
	turn turn // of who does it
	done atomic.Bool
}

func (o *onceFlag) do(ctx context.Context, f func() error) error {
	if o.done.Load() {
		return nil
	}
	if err := o.turn.take(ctx, "waiting for the delay queues"); err != nil {
		return err
	}
	defer o.turn.leave()
	if o.done.Load() {
		return nil
	}
	err := f()
	o.done.Store(err == nil)
	return err
}

// forget makes do call its function again.
func (o *onceFlag) forget() { o.done.Store(false) }

// patience is how long to wait before a further try of what must succeed.
const patience = time.Second
