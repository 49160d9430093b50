package main

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/spf13/cobra"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

func (a *app) tailCommand() *cobra.Command {
	var count int
	var length time.Duration
	cmd := &cobra.Command{
		Use:   "tail [PATTERN...]",
		Short: "Show events as they are published",
		Long: `Shows the events that are published from now on, of the types that match a pattern: * stands
for one word and # for any number of words, so "order.*" or "customer.#". Without a
pattern it shows all. It takes nothing from any subscription, and leaves nothing behind.

It ends with the status 0 when it is interrupted, after --count events, or after --for. With
--count, an end before so many events has the status 1.
With -o json each line is an event in the JSON format of CloudEvents, which publish
--events takes: a stream can't be one document.`,
		Example: `  tidings tail 'order.*'
  tidings tail --for 1m -o json > events.jsonl`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if count < 0 || length < 0 {
				return usagef("--count and --for can't be negative")
			}
			if len(args) == 0 {
				args = []string{"#"}
			}
			for _, pattern := range args {
				if err := transports.ValidatePattern(pattern); err != nil {
					return &usageError{err}
				}
			}
			return a.with(cmd.Context(), use, func(t transports.Transport) error {
				return a.tail(cmd.Context(), t, args, count, length)
			})
		},
	}
	cmd.Flags().IntVar(&count, "count", 0, "end after so many events; 0 means never")
	cmd.Flags().DurationVar(&length, "for", 0, "end after this time, such as 30s; 0 means never")
	return cmd
}

// tailConcurrency is how many events may be on their way here.
const tailConcurrency = 64

func (a *app) tail(ctx context.Context, t transports.Transport, patterns []string, limit int, length time.Duration) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	in, err := a.subscribe(ctx, t, patterns)
	if err != nil {
		return err
	}
	a.say("showing events as they are published; ctrl-c ends it")
	if length > 0 {
		timer := time.AfterFunc(length, stop)
		defer timer.Stop()
	}
	var fault error
	n := 0
	for msg := range in { // closed when all is settled
		if ctx.Err() == nil {
			if fault = a.show(msg); fault != nil {
				stop()
			}
			if n++; n == limit {
				stop()
			}
		}
		msg.Ack()
	}
	switch {
	case fault != nil:
	case ctx.Err() == nil:
		fault = errors.New("the broker has ended the subscription; begin again")
	case n < limit:
		fault = fmt.Errorf("ended after %s of --count %d", plural(n, "event"), limit)
	}
	return fault
}

// subscribe makes an ephemeral subscription, which lasts until ctx ends. --timeout bounds
// the call.
func (a *app) subscribe(ctx context.Context, t transports.Transport, patterns []string) (<-chan *message.Message, error) {
	ctx, stop := context.WithCancelCause(ctx)
	timer := time.AfterFunc(a.timeout, func() { stop(&timeoutError{a.timeout}) })
	in, err := t.Subscribe(ctx, transports.Subscription{
		Name: "tidings-tail." + events.NewID(), Topics: patterns, Concurrency: tailConcurrency, Ephemeral: true,
	})
	if err == nil && timer.Stop() {
		return in, nil // ends with ctx
	}
	timer.Stop()
	stop(nil)
	if err == nil {
		err = context.Cause(ctx)
	}
	return nil, err
}

// show prints an event.
func (a *app) show(msg *message.Message) error {
	md := events.DecodeMetadata(msg.UUID, msg.Metadata)
	if md.Type == "" { // of a foreign message
		md.Type = transports.Topic(msg)
	}
	data := []byte(msg.Payload)
	if a.output == "json" {
		if md.ID == "" {
			md.ID = events.NewID()
		}
		if md.Source == "" {
			md.Source = "unknown"
		}
		line, err := events.AppendJSON(nil, md, data)
		if err != nil {
			a.say("an event of the type %s can't be shown: %v", md.Type, err)
			return nil
		}
		_, err = fmt.Fprintf(a.out, "%s\n", line)
		return err
	}
	text := fmt.Sprintf("%d bytes", len(data))
	if utf8.Valid(data) {
		text = printable(string(data))
	}
	at := md.Time
	if at.IsZero() {
		at = time.Now()
	}
	_, err := fmt.Fprintf(a.out, "%s  %s  %s  %s  %s\n", at.Local().Format("15:04:05.000"), printable(md.Type), printable(md.Source), printable(md.ID), text)
	return err
}
