package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

// PublishOption is a setting of one publish.
type PublishOption interface{ apply(p *publishSettings) }

type publishSettings struct {
	md    events.Metadata
	delay time.Duration
}

type publishOption func(*publishSettings)

func (o publishOption) apply(p *publishSettings) { o(p) }

// WithID sets the event's id: any text, the same for each copy of an event.
// Publishing again with the same id is how a publisher retries without a second
// effect.
func WithID(id string) PublishOption {
	return publishOption(func(p *publishSettings) { p.md.ID = id })
}

// WithKey sets the partition key, in place of the event's own PartitionKey.
func WithKey(key string) PublishOption {
	return publishOption(func(p *publishSettings) { p.md.PartitionKey = key })
}

// WithSubject sets the CloudEvents subject.
func WithSubject(subject string) PublishOption {
	return publishOption(func(p *publishSettings) { p.md.Subject = subject })
}

// WithTime sets when the event happened, in place of now.
func WithTime(t time.Time) PublishOption {
	return publishOption(func(p *publishSettings) { p.md.Time = t })
}

// WithCorrelationID sets the correlation id, in place of that of the event being
// handled.
func WithCorrelationID(id string) PublishOption {
	return publishOption(func(p *publishSettings) { p.md.CorrelationID = id })
}

// WithExtension sets a CloudEvents extension attribute. Names are lower-case ASCII
// letters and digits.
func WithExtension(name, value string) PublishOption {
	return publishOption(func(p *publishSettings) {
		if p.md.Extensions == nil {
			p.md.Extensions = make(map[string]string)
		}
		p.md.Extensions[name] = value
	})
}

// WithDelay delivers the event after d. Publish does not wait for that: it
// returns when the event is stored. A transport that can't delay returns
// [transports.ErrUnsupported].
func WithDelay(d time.Duration) PublishOption {
	return publishOption(func(p *publishSettings) { p.delay = d })
}

// Publish sends an event and returns nil when the transport has stored it for
// every subscription. It blocks while the broker is slow, down or full, until ctx
// ends. In a handler, with the handler's context, the event inherits the
// correlation id, and the handled event's id becomes its causation id.
//
// An event that is not valid is refused with its [events.ValidationError]; one
// that is too large with [transports.ErrTooLarge]; a type without a name with a
// [*TypeError]. After any other error the event may have been sent: publish it
// again with the same id, [WithID].
func (b *Bus) Publish(ctx context.Context, event any, opts ...PublishOption) error {
	if err := b.publishable(); err != nil {
		return err
	}
	name, err := b.encoder.nameOf(event)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	out, err := b.encoder.encode(ctx, name, event, opts)
	if err == nil {
		err = b.send(ctx, []transports.Outgoing{out})
	}
	if err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	return nil
}

// PublishAll sends events as one batch, in order, waiting once. When one of them
// can't be encoded nothing is sent. When the transport could send only some of
// them the error is a [*transports.PublishError] that says which it could not.
func (b *Bus) PublishAll(ctx context.Context, all ...any) error {
	if err := b.publishable(); err != nil {
		return err
	}
	if len(all) == 0 {
		return nil
	}
	batch := make([]transports.Outgoing, len(all))
	var faults []error
	for i, event := range all {
		var err error
		batch[i], err = b.encoder.Encode(ctx, event)
		if err != nil {
			faults = append(faults, fmt.Errorf("publish event %d of %d: %w", i, len(all), err))
		}
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	if err := b.send(ctx, batch); err != nil {
		return fmt.Errorf("publish %d events: %w", len(all), err)
	}
	return nil
}

// PublishRaw sends an event as it stands, for bridges and tools. Only what every
// event must have is filled in when it is missing: the id, and this bus's source.
// Metadata.Type is required. The data is not looked at.
func (b *Bus) PublishRaw(ctx context.Context, raw Raw) error {
	if err := b.publishable(); err != nil {
		return err
	}
	md := raw.Metadata
	if md.ID == "" {
		md.ID = events.NewID()
	}
	if md.Source == "" {
		md.Source = b.cfg.Source
	}
	out, err := outgoing(ctx, &md, slices.Clone(raw.Data)) // the transport keeps it, see transports.BatchPublisher
	if err == nil {
		err = b.send(ctx, []transports.Outgoing{out})
	}
	if err != nil {
		return fmt.Errorf("publish %s: %w", md.Type, err)
	}
	return nil
}

// publishable returns why nothing can be published now.
func (b *Bus) publishable() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.state == ended:
		return ErrClosed
	case len(b.faults) > 0:
		return b.faultError()
	case len(b.subs) > 0 && (b.state == configuring || b.state == starting):
		return ErrNotRunning
	}
	return nil // while stopping too: handlers in flight may publish
}
