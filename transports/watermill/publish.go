package watermill

import (
	"context"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// maxPublishing bounds the Publish calls that run in the publisher at a time, so that
// one that hangs for ever can't collect goroutines without end.
const maxPublishing = 1024

// Publish gives copies of the messages to Watermill's publisher, in one call, and
// returns what that returns: nil means what it means there. When the context of the
// first message ends earlier, Publish returns its cause; the publisher's call is left
// to end by itself, and its messages may still be sent.
//
// After an error of the publisher all the messages count as not certainly sent, since
// Watermill does not say which were.
func (t *Transport) Publish(topic string, messages ...*message.Message) error {
	ctx := context.Background()
	if len(messages) > 0 {
		ctx = messages[0].Context()
	}
	if err := t.usable(ctx); err != nil {
		return err
	}
	if t.publisher == nil {
		return fmt.Errorf("publish without a publisher: %w", transports.ErrUnsupported)
	}
	if err := transports.ValidateTopic(topic); err != nil {
		return err
	}
	tooLarge := make(map[int]error)
	batch := make([]*message.Message, 0, len(messages))
	for i, msg := range messages {
		if size := len(msg.Payload); size > t.cfg.MaxMessageBytes {
			tooLarge[i] = transports.TooLarge(size, t.cfg.MaxMessageBytes)
			continue
		}
		batch = append(batch, t.outgoing(topic, msg))
	}
	var sent error
	if len(batch) > 0 {
		sent = t.publish(ctx, topic, batch)
	}
	var failures []transports.PublishFailure
	for i := range messages {
		err, refused := tooLarge[i]
		if !refused {
			err = sent
		}
		if err != nil {
			failures = append(failures, transports.PublishFailure{Index: i, Err: err})
		}
	}
	return transports.BatchError(len(messages), failures)
}

func (t *Transport) publish(ctx context.Context, topic string, batch []*message.Message) error {
	select {
	case t.publishing <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.closed.Done():
		return transports.ErrClosed
	}
	return t.call(ctx, func() error {
		defer func() { <-t.publishing }()
		return t.publisher.Publish(topic, batch...)
	})
}
