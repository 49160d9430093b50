package bus

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

// EncoderConfig configures an [Encoder]. Source is required.
type EncoderConfig struct {
	// Source is the CloudEvents source of the events, see [Config.Source].
	Source string

	// Codecs write the events' data, see [Config.Codecs]. None means [JSON].
	Codecs []Codec
}

// Encoder makes messages of events: what [Bus.Publish] does before it sends anything.
// It is for what publishes in another way, as the outbox does. Its methods may be called
// concurrently.
type Encoder struct {
	source string
	codecs []Codec
	types  registry
}

// NewEncoder makes an encoder. It returns every fault of cfg in one joined error.
func NewEncoder(cfg EncoderConfig) (*Encoder, error) {
	if err := errors.Join(validateEncoding(cfg.Source, cfg.Codecs)...); err != nil {
		return nil, err
	}
	return newEncoder(cfg.Source, cfg.Codecs), nil
}

func newEncoder(source string, codecs []Codec) *Encoder {
	if len(codecs) == 0 {
		codecs = []Codec{JSON{}}
	}
	return &Encoder{source: source, codecs: codecs}
}

func validateEncoding(source string, codecs []Codec) (faults []error) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if source == "" {
		fault("Source is empty; name the service that publishes, such as %q", "shop")
	} else if err := (&events.Metadata{ID: "x", Source: source, Type: "x"}).Validate(); err != nil {
		fault("Source: %w", err)
	}
	for i, codec := range codecs {
		if codec == nil {
			fault("Codecs[%d] is nil", i)
		}
	}
	return faults
}

// RegisterType is [Register] for an encoder. The error is a [*TypeError].
func RegisterType[T any](e *Encoder, eventType string) error {
	return e.types.register(reflect.TypeFor[T](), eventType)
}

// Encode makes the message of an event, with the errors of [Bus.Publish]: what an event
// carries, what is checked and what it inherits from the event that is being handled, if
// ctx is that of a handler, is all the same.
func (e *Encoder) Encode(ctx context.Context, event any, opts ...PublishOption) (transports.Outgoing, error) {
	name, err := e.nameOf(event)
	if err != nil {
		return transports.Outgoing{}, err
	}
	return e.encode(ctx, name, event, opts)
}

func (e *Encoder) encode(ctx context.Context, name string, event any, opts []PublishOption) (transports.Outgoing, error) {
	if err := validate(event); err != nil {
		return transports.Outgoing{}, err
	}
	codec, err := e.codecFor(event)
	if err != nil {
		return transports.Outgoing{}, err
	}
	data, err := codec.Marshal(event)
	if err != nil {
		return transports.Outgoing{}, fmt.Errorf("encode: %w", err)
	}

	p := publishSettings{md: events.Metadata{Source: e.source, DataContentType: codec.ContentType()}}
	if keyed, ok := event.(events.Keyed); ok {
		p.md.PartitionKey = keyed.PartitionKey()
	}
	if cause, ok := events.MetadataFrom(ctx); ok {
		p.md.CausationID = cause.ID
		p.md.CorrelationID = cause.CorrelationID
		if p.md.CorrelationID == "" {
			p.md.CorrelationID = cause.ID
		}
	}
	if len(opts) > 0 {
		p = applied(p, opts)
	}
	p.md.Type = name
	if p.md.ID == "" {
		p.md.ID = events.NewID()
	}
	if p.md.CorrelationID == "" {
		p.md.CorrelationID = p.md.ID // the first event of what it may set off
	}
	if p.md.Time.IsZero() {
		p.md.Time = time.Now()
	}
	out, err := outgoing(ctx, &p.md, data)
	out.Delay = p.delay
	return out, err
}

// applied returns p with opts. It is a function of its own so that settings without
// options stay off the heap.
func applied(p publishSettings, opts []PublishOption) publishSettings {
	for _, opt := range opts {
		opt.apply(&p)
	}
	return p
}

func outgoing(ctx context.Context, md *events.Metadata, data []byte) (transports.Outgoing, error) {
	if err := md.Validate(); err != nil {
		return transports.Outgoing{}, err
	}
	// Not NewMessage: a message on its way out is never acknowledged, so it needs
	// no channels for that.
	msg := &message.Message{UUID: md.ID, Metadata: md.Encode(), Payload: data}
	msg.SetContext(ctx)
	return transports.Outgoing{Topic: md.Type, Message: msg}, nil
}
