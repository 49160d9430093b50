package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// toTransport is the innermost PublishFunc: it gives a batch to the transport, as
// one if the transport takes batches, else one run of messages of the same topic
// after the other.
func (b *Bus) toTransport(ctx context.Context, batch []transports.Outgoing) error {
	if bp, ok := b.transport.(transports.BatchPublisher); ok {
		return bp.PublishBatch(ctx, batch)
	}
	var failures []transports.PublishFailure
	for start := 0; start < len(batch); {
		end := start + 1
		for end < len(batch) && batch[end].Topic == batch[start].Topic {
			end++
		}
		failures = appendFailures(failures, start, end-start, b.publishRun(ctx, batch[start:end]))
		start = end
	}
	return transports.BatchError(len(batch), failures)
}

// publishRun publishes messages of one topic.
func (b *Bus) publishRun(ctx context.Context, run []transports.Outgoing) error {
	msgs := make([]*message.Message, len(run))
	for i, out := range run {
		if out.Delay > 0 {
			return fmt.Errorf("delay: %w", transports.ErrUnsupported)
		}
		out.Message.SetContext(ctx)
		msgs[i] = out.Message
	}
	return b.transport.Publish(run[0].Topic, msgs...)
}

// appendFailures adds what err says of the n messages that begin at index first.
func appendFailures(failures []transports.PublishFailure, first, n int, err error) []transports.PublishFailure {
	if err == nil {
		return failures
	}
	if partial, ok := errors.AsType[*transports.PublishError](err); ok {
		for _, f := range partial.Failures {
			failures = append(failures, transports.PublishFailure{Index: first + f.Index, Err: f.Err})
		}
		return failures
	}
	for i := range n {
		failures = append(failures, transports.PublishFailure{Index: first + i, Err: err})
	}
	return failures
}
