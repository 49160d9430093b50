package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

// spy is a transport on a broker that others use too. It notes what a run does there.
type spy struct {
	*memory.Transport
	broker *memory.Broker
	other  *memory.Transport // somebody else's, on the same broker

	publish func(s *spy, ctx context.Context, batch []transports.Outgoing) error // nil: as usual
	down    bool                                                                 // Ping fails

	mu         sync.Mutex // guards what follows
	subscribed []string
	published  []string // ids, in the order in which they arrived
	closed     bool
}

func newSpy(t *testing.T) *spy {
	t.Helper()
	broker, err := memory.NewBroker(memory.Config{QueueSize: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	return &spy{Transport: broker.Connect(), broker: broker, other: broker.Connect()}
}

func (s *spy) SubscribeNotified(ctx context.Context, sub transports.Subscription) (<-chan *message.Message, func(*message.Message), error) {
	s.mu.Lock()
	s.subscribed = append(s.subscribed, sub.Name)
	s.mu.Unlock()
	return s.Transport.SubscribeNotified(ctx, sub)
}

func (s *spy) PublishBatch(ctx context.Context, batch []transports.Outgoing) error {
	s.mu.Lock()
	for _, out := range batch {
		s.published = append(s.published, out.Message.UUID)
	}
	s.mu.Unlock()
	if s.publish != nil {
		return s.publish(s, ctx, batch)
	}
	return s.Transport.PublishBatch(ctx, batch)
}

func (s *spy) Ping(ctx context.Context) error {
	if s.down {
		return errors.New("connection refused")
	}
	return s.Transport.Ping(ctx)
}

func (s *spy) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.Transport.Close()
}

// leftBehind returns what the run did not clean up.
func (s *spy) leftBehind(t *testing.T) []string {
	t.Helper()
	var left []string
	for _, name := range s.subscribed {
		if _, err := s.other.Depth(t.Context(), name); !errors.Is(err, transports.ErrNoSubscription) {
			left = append(left, name)
		}
	}
	if !s.closed {
		left = append(left, "the transport is open")
	}
	if err := s.other.Close(); err != nil {
		t.Error(err)
	}
	return left
}

// result is what a session comes to.
type result struct {
	err            error
	stdout, stderr string
}

func (r result) last() string { return outcome{stdout: r.stdout}.last() }

// runOn runs a session of lines, or of a sample, on a spy, in virtual time, and checks
// that it cleans up.
func runOn(t *testing.T, s *spy, in *input) result {
	t.Helper()
	return runUntil(t.Context(), t, s, in)
}

// runUntil is runOn with an interrupt, the end of ctx.
func runUntil(ctx context.Context, t *testing.T, s *spy, in *input) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	err := newSession(s, in, newConsole(&stdout, &stderr)).run(ctx)
	if left := s.leftBehind(t); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if len(s.subscribed) != 7 && err == nil {
		t.Errorf("subscriptions: %v", s.subscribed)
	}
	return result{err, stdout.String(), stderr.String()}
}

func linesOf(text ...string) *input {
	return &input{name: "lines", lines: readLines(strings.NewReader(strings.Join(text, "\n")), maxLine)}
}

func smallSample() *input {
	s := newSample()
	s.events = s.events[:1500]
	return &input{name: "sample", lines: s.all, sample: s}
}
