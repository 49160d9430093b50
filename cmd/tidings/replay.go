package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/gotidings/tidings/eventstore"
	"github.com/gotidings/tidings/transports"
)

// replayResult is what events replay prints.
type replayResult struct {
	ID           string  `json:"id"`
	Subscription string  `json:"subscription"`
	Sent         int64   `json:"sent"`
	Done         bool    `json:"done"`
	Fraction     float64 `json:"fraction"`
}

func (a *app) eventsReplay() *cobra.Command {
	var f queryFlags
	var r eventstore.Replay
	var to string
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Send stored events to one subscription again",
		Long: `Sends a range of stored events to one subscription, and to no other, in order, with their
original ids and times and the id of the replay as the attribute replayid. With --declare,
a subscription that does not exist is made. The position is kept in the database: after an
interruption, --id goes on with the replay where it was.

The subscription may be on another broker than the store: --to has its URL.`,
		Example: `  tidings events replay -s shop.projection --type 'order.*' --since 24h --rate 500
  tidings events replay -s shop.new-projection --declare 'order.#'
  tidings events replay -s shop.audit --to amqp://user:password@host/vhost`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if r.Query, err = f.query(); err != nil {
				return err
			}
			if r.Subscription == "" {
				return usagef("--subscription is missing: events are sent to one subscription")
			}
			return a.withStore(cmd.Context(), func(s *eventstore.Store, target transports.Transport) error {
				if to == "" {
					return a.replay(cmd.Context(), s, target, r)
				}
				other := *a
				other.transport = to
				return other.with(cmd.Context(), use, func(t transports.Transport) error { return a.replay(cmd.Context(), s, t, r) })
			})
		},
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVarP(&r.Subscription, "subscription", "s", "", "`NAME` of the subscription, with the service's prefix")
	flags.StringArrayVar(&r.Declare, "declare", nil, "make the subscription, with this `PATTERN` of topics, if it does not exist; may be repeated")
	flags.StringVar(&r.ID, "id", "", "`ID` of the replay; one that is known goes on where it was")
	flags.Float64Var(&r.Rate, "rate", 0, "most events a second; 0 means no limit")
	flags.StringVar(&to, "to", "", "`URL` of the broker of the subscription; that of the store when not given")
	return cmd
}

func (a *app) replay(ctx context.Context, s *eventstore.Store, target transports.Transport, r eventstore.Replay) error {
	const every = 5 * time.Second
	said := time.Now()
	r.OnProgress = func(p eventstore.Progress) {
		if time.Since(said) >= every && !p.Done {
			said = time.Now()
			a.say("replay %s: %d sent, %.0f %%", p.ID, p.Sent, 100*p.Fraction)
		}
	}
	p, err := a.goOn(ctx, s, target, r)
	if err != nil {
		if p.ID != "" && !p.Done {
			a.say("replay %s: %d sent; --id %[1]s goes on", p.ID, p.Sent)
		}
		return invalid(err)
	}
	if !p.Done {
		return fmt.Errorf("replay %s has ended after %d events and is not done; --id %[1]s goes on", p.ID, p.Sent)
	}
	result := replayResult{p.ID, p.Subscription, p.Sent, p.Done, p.Fraction}
	tab := &table{header: []string{"REPLAY", "SUBSCRIPTION", "SENT"}}
	tab.add(p.ID, p.Subscription, fmt.Sprint(p.Sent))
	return a.print(result, tab)
}

// goOn resumes a replay that is known, whose range its flags need not repeat.
func (a *app) goOn(ctx context.Context, s *eventstore.Store, target transports.Transport, r eventstore.Replay) (eventstore.Progress, error) {
	if r.ID != "" {
		all, err := s.Replays(ctx)
		if err != nil {
			return eventstore.Progress{}, err
		}
		for _, p := range all {
			if p.ID != r.ID {
				continue
			}
			if p.Subscription != r.Subscription {
				return p, usagef("the replay %s is one to %s", p.ID, p.Subscription)
			}
			return s.Resume(ctx, target, r.ID, r.Control)
		}
	}
	return s.Replay(ctx, target, r)
}
