package bus

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/middleware"
)

// Subscription is a named consumer group and its handlers.
type Subscription struct {
	bus      *Bus
	name     string
	fullName string // at the broker
	settings settings
	patterns []string
	routes   map[string]route // by event type
	raw      func(context.Context, Raw) error

	steps []func(context.Context, Delivery) // of the instrumentations; set by Start

	gate    middleware.Gate
	release func() // ends the pause that Resume ends; nil without one; guarded by Bus.mu

	interruption interruption
}

// route leads events of one type to their handler.
type route func(ctx context.Context, codec Codec, contentType string, data []byte) error

// Name returns the name of the subscription at the broker, such as
// "shop.send-welcome-email".
func (s *Subscription) Name() string { return s.fullName }

// Raw is an event with its data as it came, which a handler must not change: it may be
// tried again.
type Raw struct {
	Metadata events.Metadata
	Data     []byte
}

// Subscribe adds a subscription with a handler for one type of event. The
// handler's error decides what becomes of the event, see the package
// documentation. Faults are reported by Start.
func Subscribe[E any](b *Bus, name string, handler func(context.Context, E) error, opts ...SubscribeOption) *Subscription {
	s := b.Subscription(name, opts...)
	On(s, handler)
	return s
}

// On adds a handler for a further type of event to a subscription: its events
// come in one order, through one queue.
func On[E any](s *Subscription, handler func(context.Context, E) error) {
	t := reflect.TypeFor[E]()
	if handler == nil {
		s.bus.fault(fmt.Errorf("subscription %q: the handler for %s is nil", s.name, t))
		return
	}
	var zero E
	eventType, err := s.bus.encoder.name(t, zero)
	if err != nil {
		s.bus.fault(fmt.Errorf("subscription %q: %w", s.name, err))
		return
	}
	if _, err := s.bus.encoder.codecFor(zero); err != nil { // and what can't be encoded can't be decoded
		s.bus.fault(fmt.Errorf("subscription %q: %w", s.name, err))
	}
	s.on(eventType, decoding(eventType, handler))
}

// decoding makes the route of a type: decode, validate, handle.
func decoding[E any](eventType string, handler func(context.Context, E) error) route {
	t := reflect.TypeFor[E]()
	pointer := t.Kind() == reflect.Pointer
	var zero E
	_, validates := any(zero).(events.Validator) // asked once: the question moves an event to the heap
	return func(ctx context.Context, codec Codec, contentType string, data []byte) error {
		var event E
		var err error
		if pointer { // codecs fill the struct that a pointer leads to
			event = reflect.New(t.Elem()).Interface().(E)
			err = codec.Unmarshal(data, event)
		} else {
			err = codec.Unmarshal(data, &event)
		}
		if err == nil && validates {
			err = validate(event)
		}
		if err != nil {
			return Permanent(&DecodeError{EventType: eventType, ContentType: contentType, Err: err})
		}
		return handler(ctx, event)
	}
}

// validate asks an event whether it is valid, if it can tell.
func validate(event any) error {
	if v, ok := event.(events.Validator); ok {
		return v.Validate()
	}
	return nil
}

func (s *Subscription) on(eventType string, r route) {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	if s.bus.state != configuring {
		panic("bus: a handler of subscription " + s.name + " comes after Start")
	}
	if _, taken := s.routes[eventType]; taken {
		s.bus.faults = append(s.bus.faults, fmt.Errorf("subscription %q has two handlers for %q", s.name, eventType))
		return
	}
	s.routes[eventType] = r
	s.patterns = append(s.patterns, eventType)
}

// SubscribeRaw adds a subscription that gets events as they came, whatever their
// type, by patterns of it: * stands for one word and # for any number of words,
// so "order.*" or "#". It is for audit and for bridging to elsewhere, see
// [Bus.PublishRaw].
func SubscribeRaw(b *Bus, name string, patterns []string, handler func(context.Context, Raw) error, opts ...SubscribeOption) *Subscription {
	s := b.Subscription(name, opts...)
	if handler == nil {
		b.fault(fmt.Errorf("subscription %q: the handler is nil", name))
	}
	s.patterns, s.raw = slices.Clone(patterns), handler
	return s
}

// handle is the innermost step: it finds the handler of an event and calls it.
func (s *Subscription) handle(ctx context.Context, data []byte) error {
	md, ok := events.MetadataFrom(ctx)
	if !ok {
		return Permanent(errors.New("bus: the event has no metadata")) // a user's middleware replaced the context
	}
	if s.raw != nil {
		return s.raw(ctx, Raw{Metadata: md, Data: data})
	}
	r, ok := s.routes[md.Type]
	if !ok {
		return middleware.Defer(unknownTypeDelay, &UnknownTypeError{EventType: md.Type, Subscription: s.fullName})
	}
	return s.route(ctx, md, r, data)
}

// route calls r with the codec for the event's content type.
func (s *Subscription) route(ctx context.Context, md events.Metadata, r route, data []byte) error {
	for _, codec := range s.bus.cfg.Codecs {
		if codec.Accepts(md.DataContentType) {
			return r(ctx, codec, md.DataContentType, data)
		}
	}
	return Permanent(&DecodeError{EventType: md.Type, ContentType: md.DataContentType, Err: ErrContentType})
}
