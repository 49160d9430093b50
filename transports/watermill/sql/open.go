package sql

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wmsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
	adapter "github.com/gotidings/tidings/transports/watermill"
)

// Open makes a transport on a database, which must answer before ctx ends. It returns
// every fault of cfg in one error.
func Open(ctx context.Context, cfg Config) (*adapter.Transport, error) {
	return open(ctx, cfg, func() error { return nil })
}

// open is Open, with what to do when the transport is closed.
func open(ctx context.Context, cfg Config, closeDB func() error) (*adapter.Transport, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("watermill-sql: %w", err)
	}
	cfg = cfg.withDefaults()
	if err := cfg.DB.PingContext(ctx); err != nil {
		return nil, fmt.Errorf("watermill-sql: connect: %w", err)
	}
	log := logger{watermill.NewSlogLogger(cfg.Logger)}
	inner, err := wmsql.NewPublisher(cfg.DB, wmsql.PublisherConfig{SchemaAdapter: cfg.Schema, AutoInitializeSchema: true}, log)
	if err != nil {
		return nil, fmt.Errorf("watermill-sql: %w", err)
	}
	return adapter.New(publisher{inner, cfg, closeDB}, nil, adapter.Config{
		Subscriber: func(s transports.Subscription) (message.Subscriber, error) {
			inner, err := wmsql.NewSubscriber(cfg.DB, wmsql.SubscriberConfig{
				ConsumerGroup:    cfg.Group(s),
				AckDeadline:      &cfg.AckDeadline,
				PollInterval:     cfg.PollInterval,
				ResendInterval:   cfg.ResendInterval,
				SchemaAdapter:    cfg.Schema,
				OffsetsAdapter:   cfg.Offsets,
				InitializeSchema: true,
			}, log)
			return &subscriber{Subscriber: inner, cfg: cfg, group: cfg.Group(s)}, err
		},
		Ordered:         true, // a group's row in the offsets table is locked while a message is handled
		MaxMessageBytes: cfg.MaxMessageBytes,
		CloseTimeout:    cfg.CloseTimeout,
	})
}

// maxTopicBytes is what PostgreSQL leaves of an identifier beside the prefix of the
// offsets table. It cuts longer ones, so that two topics would have one table.
const maxTopicBytes = 63 - len("watermill_offsets_")

func (c Config) checkTopic(topic string) error {
	s, standard := c.Schema.(wmsql.DefaultPostgreSQLSchema)
	if standard && s.GenerateMessagesTableName == nil && len(topic) > maxTopicBytes {
		return fmt.Errorf("topic %q has %d bytes; the name of its table leaves room for %d", topic, len(topic), maxTopicBytes)
	}
	return nil
}

type publisher struct {
	*wmsql.Publisher
	cfg     Config
	closeDB func() error
}

func (p publisher) Publish(topic string, messages ...*message.Message) error {
	if err := p.cfg.checkTopic(topic); err != nil {
		return err
	}
	return p.Publisher.Publish(topic, messages...)
}

func (p publisher) Close() error { return errors.Join(p.Publisher.Close(), p.closeDB()) }

// closeGrace is how long a subscriber may take to commit what was acknowledged, which comes
// again if it does not. A busy database needs more than a second; a replica on standby takes
// that long to close.
const closeGrace = 3 * time.Second

// subscriber ends a query that waits for another replica to finish with the group:
// watermill-sql's own Close waits for it.
type subscriber struct {
	*wmsql.Subscriber
	cfg   Config
	group string

	mu   sync.Mutex
	ends []context.CancelFunc
}

func (s *subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	if err := s.cfg.checkTopic(topic); err != nil {
		return nil, err
	}
	if s.cfg.startsNow() {
		if err := s.SubscribeInitialize(topic); err != nil {
			return nil, err
		}
		if err := startNow(s.cfg.Dialect, topic).declare(ctx, s.cfg.DB, s.group); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	s.ends = append(s.ends, cancel)
	s.mu.Unlock()
	return s.Subscriber.Subscribe(ctx, topic)
}

func (s *subscriber) Close() error {
	closed := make(chan error, 1)
	go func() { closed <- s.Subscriber.Close() }()
	timer := time.NewTimer(closeGrace)
	defer timer.Stop()
	defer s.end()
	select {
	case err := <-closed:
		return err
	case <-timer.C:
		s.end()
		return <-closed
	}
}

func (s *subscriber) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, cancel := range s.ends {
		cancel()
	}
}

// logger logs at debug what watermill-sql takes for information.
type logger struct{ watermill.LoggerAdapter }

func (l logger) Info(msg string, fields watermill.LogFields) { l.Debug(msg, fields) }

func (l logger) With(fields watermill.LogFields) watermill.LoggerAdapter {
	return logger{l.LoggerAdapter.With(fields)}
}
