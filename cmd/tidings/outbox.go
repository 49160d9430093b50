package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

func (a *app) outboxCommand() *cobra.Command {
	return group("outbox", "Events on their way out of a database: status, retry", a.outboxStatus(), a.outboxRetry())
}

// withLog opens the log of an outbox.
func (a *app) withLog(ctx context.Context, fn func(*tsql.Transport) error) error {
	return a.with(ctx, look, func(t transports.Transport) error {
		log, ok := t.(*tsql.Transport)
		if !ok {
			return usagef("an outbox is in a database: give --transport postgres://, mysql:// or sqlite:")
		}
		return fn(log)
	})
}

// outboxState is what waits for one destination.
type outboxState struct {
	Name       string  `json:"name"`
	Waiting    int     `json:"waiting"`
	AgeSeconds float64 `json:"ageSeconds"`
	Parked     int     `json:"parked"`
}

func (a *app) outboxStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Count what waits for each destination, and the age of the oldest",
		Long: `Counts, for each destination that has had a relay, the events that are committed and not
sent, with the age of the oldest, and those that are parked: the destination has refused
them. An age that grows means that no relay runs, or that the destination is away.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withLog(cmd.Context(), func(log *tsql.Transport) error {
				ctx, cancel := a.bounded(cmd.Context())
				defer cancel()
				stats, err := outbox.StatsOf(ctx, log)
				if err != nil {
					return err
				}
				states := []outboxState{}
				tab := &table{header: []string{"DESTINATION", "WAITING", "AGE", "PARKED"}}
				for _, s := range stats {
					states = append(states, outboxState{s.Name, s.Waiting, s.Age.Seconds(), s.Parked})
					tab.add(s.Name, strconv.Itoa(s.Waiting), age(s.Age), strconv.Itoa(s.Parked))
				}
				return a.print(states, tab)
			})
		},
	}
}

func (a *app) outboxRetry() *cobra.Command {
	var sel selection
	var opts retryOptions
	cmd := &cobra.Command{
		Use:   "retry DESTINATION [ID...]",
		Short: "Have parked events sent again, step by step",
		Long: `Has events sent again that were parked because the destination has refused them. They have
lost their place in the order. poison list, show and discard work on them too, under the
subscription outbox.<destination>.
` + retryHelp,
		Example: `  tidings outbox retry rabbitmq --all`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			sel.subscriptions, sel.ids = []string{outbox.SubscriptionOf(args[0])}, args[1:]
			if err := sel.check(true); err != nil {
				return err
			}
			if err := opts.check(); err != nil {
				return err
			}
			return a.withLog(cmd.Context(), func(log *tsql.Transport) error {
				if err := a.knownDestination(cmd.Context(), log, args[0]); err != nil {
					return err
				}
				return a.retry(cmd.Context(), log, &sel, opts)
			})
		},
	}
	sel.filters(cmd)
	sel.mustChoose(cmd)
	opts.flags(cmd)
	return cmd
}

// knownDestination says what there is when there is no such destination.
func (a *app) knownDestination(ctx context.Context, log *tsql.Transport, name string) error {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	stats, err := outbox.StatsOf(ctx, log)
	if err != nil {
		return err
	}
	for _, s := range stats {
		if s.Name == name {
			return nil
		}
	}
	return fmt.Errorf("no relay has ever run for a destination %.80q; tidings outbox status shows which there are", name)
}
