package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
)

// What the broker loses is found out, and counted by event.
func TestLostEvents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSpy(t)
		s.publish = func(s *spy, ctx context.Context, batch []transports.Outgoing) error {
			if batch[0].Message.UUID == "2" {
				return nil // without having it
			}
			return s.Transport.PublishBatch(ctx, batch)
		}
		began := time.Now()
		r := runOn(t, s, linesOf(event(t, "1", "customer.created", customer(1)), event(t, "2", "document.processed", nil)))
		const want = "malformed=0 published=2 handled=1 retried=0 deduplicated=0 poisoned=0 unhandled=0 lost=1"
		if r.err == nil || !strings.Contains(r.err.Error(), "1 events were lost") || !strings.Contains(r.err.Error(), "3 deliveries have come to no end") {
			t.Errorf("error %v", r.err)
		}
		if r.last() != want {
			t.Errorf("last line %q\nwant      %q", r.last(), want)
		}
		if took := time.Since(began); took > 3*time.Minute {
			t.Errorf("it took %v to find out", took)
		}
	})
}

// A broker that goes away ends the run with its error, soon.
func TestBrokerFails(t *testing.T) {
	t.Parallel()
	reset := errors.New("connection reset")
	tests := []struct {
		name    string
		publish func(context.Context) error
		down    bool
		want    string
	}{
		{"with an error", func(context.Context) error { return reset }, true, "publish customer.created: connection reset"},
		{"without an answer", func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}, false, "publish customer.created: context deadline exceeded"},
		{"by being closed", func(context.Context) error { return transports.ErrClosed }, false, "transport is closed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSpy(t)
				s.down = tt.down
				s.publish = func(s *spy, ctx context.Context, batch []transports.Outgoing) error {
					if n, _ := fmt.Sscan(batch[0].Message.UUID, new(int)); n == 0 { // "x…"
						return tt.publish(ctx)
					}
					return s.Transport.PublishBatch(ctx, batch)
				}
				var lines []string
				for i := range 200 {
					id := fmt.Sprint(i)
					if i >= 100 {
						id = "x" + id
					}
					lines = append(lines, event(t, id, "customer.created", customer(1)))
				}
				began := time.Now()
				r := runOn(t, s, linesOf(lines...))
				if r.err == nil || !strings.Contains(r.err.Error(), tt.want) || !strings.Contains(r.err.Error(), "line 1") {
					t.Errorf("error %v, want %q", r.err, tt.want)
				}
				if r.stderr != "" {
					t.Errorf("complaints about single lines: %s", r.stderr)
				}
				if !strings.HasPrefix(r.last(), "malformed=0 published=") {
					t.Errorf("last line %q", r.last())
				}
				if took := time.Since(began); took > 2*publishTime {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

func TestSubscriptionLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSpy(t)
		s.publish = func(s *spy, ctx context.Context, batch []transports.Outgoing) error {
			if batch[0].Message.UUID == "50" {
				if err := s.other.RemoveSubscription(ctx, s.subscribed[0]); err != nil {
					t.Error(err)
				}
			}
			return s.Transport.PublishBatch(ctx, batch)
		}
		var lines []string
		for i := range 100 {
			lines = append(lines, event(t, fmt.Sprint(i), "customer.created", customer(1)))
		}
		r := runOn(t, s, linesOf(lines...))
		if lost, ok := errors.AsType[*bus.SubscriptionLostError](r.err); !ok || !strings.Contains(lost.Subscription, "send-welcome-email") {
			t.Errorf("error %v", r.err)
		}
	})
}

func TestReadError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in, feed := io.Pipe()
		go func() {
			fmt.Fprintln(feed, event(t, "1", "customer.created", customer(1)))
			_ = feed.CloseWithError(errors.New("disk on fire"))
		}()
		r := runOn(t, newSpy(t), &input{name: "pipe", lines: readLines(in, maxLine)})
		if r.err == nil || !strings.Contains(r.err.Error(), "read line 2: disk on fire") {
			t.Errorf("error %v", r.err)
		}
	})
}

// A failure to start deletes the subscriptions that were declared before it.
func TestStartFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &refusing{spy: newSpy(t)}
		var stdout, stderr bytes.Buffer
		err := newSession(s, linesOf(), newConsole(&stdout, &stderr)).run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "access refused") {
			t.Errorf("error %v", err)
		}
		if left := s.leftBehind(t); len(left) > 0 || len(s.subscribed) == 0 {
			t.Errorf("left behind: %v of %v", left, s.subscribed)
		}
		if got := (outcome{stdout: stdout.String()}).last(); got != (summary{}).String() {
			t.Errorf("last line %q", got)
		}
	})
}

type refusing struct{ *spy }

func (r *refusing) SubscribeNotified(ctx context.Context, sub transports.Subscription) (<-chan *message.Message, func(*message.Message), error) {
	if strings.HasSuffix(sub.Name, ".record-analytics") {
		return nil, nil, errors.New("access refused")
	}
	return r.spy.SubscribeNotified(ctx, sub)
}
