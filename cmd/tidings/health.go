package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gotidings/tidings/health"
	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// healthResult is a check and what it has found.
type healthResult struct {
	Check  string `json:"check"`
	Status string `json:"status"` // pass, fail
	Output string `json:"output,omitempty"`
}

func (a *app) healthCommand() *cobra.Command {
	var maxAge time.Duration
	var maxPoisoned int
	var sel selection
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Check that the broker can be used",
		Long: `Connects, checks that what services need is there, and asks the broker for an answer. With
--max-outbox-age it also checks that no event has waited for longer in an outbox, and with
--max-poisoned that no subscription has more poisoned events. The exit status is 0 when
all checks pass, and else 1.`,
		Example: `  tidings health
  tidings health --max-outbox-age 1m --max-poisoned 0 -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case maxAge < 0:
				return usagef("--max-outbox-age is %v; it takes a duration such as 1m", maxAge)
			case maxPoisoned < 0:
				return usagef("--max-poisoned is %d; it takes 0 or more", maxPoisoned)
			case len(sel.subscriptions) > 0 && !cmd.Flags().Changed("max-poisoned"):
				return usagef("--subscription is for --max-poisoned, which is missing")
			}
			return a.with(cmd.Context(), use, func(t transports.Transport) error {
				checks := []health.Check{health.Transport(t)}
				if maxAge > 0 {
					log, ok := t.(*tsql.Transport)
					if !ok {
						return usagef("--max-outbox-age is for databases: give --transport postgres://, mysql:// or sqlite:")
					}
					checks = append(checks, health.Age("outbox", maxAge, oldest(log)))
				}
				if cmd.Flags().Changed("max-poisoned") {
					names, err := sel.names(cmd.Context(), a, t)
					if err != nil {
						return err
					}
					checks = append(checks, health.Check{Name: "poisoned", Func: a.poisonedCheck(t, names, maxPoisoned)})
				}
				return a.health(cmd.Context(), checks)
			})
		},
	}
	cmd.Flags().DurationVar(&maxAge, "max-outbox-age", 0, "the longest that an event may wait in an outbox, such as 1m; 0 means not to look")
	cmd.Flags().IntVar(&maxPoisoned, "max-poisoned", 0, "the most poisoned events of a subscription; not looked at when not given")
	cmd.Flags().StringArrayVarP(&sel.subscriptions, "subscription", "s", nil, "`NAME` of a subscription for --max-poisoned; may be repeated; all when not given, where the broker can list them")
	return cmd
}

// oldest returns the age of the oldest event in any outbox of a log.
func oldest(log *tsql.Transport) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) {
		stats, err := outbox.StatsOf(ctx, log)
		var age time.Duration
		for _, s := range stats {
			age = max(age, s.Age)
		}
		return age, err
	}
}

func (a *app) poisonedCheck(t transports.Transport, names []string, limit int) func(context.Context) error {
	return func(ctx context.Context) error {
		reporter, err := a.depths(t)
		if err != nil {
			return err
		}
		var over []string
		for _, name := range names {
			d, err := reporter.Depth(ctx, name)
			if err != nil {
				return err
			}
			if d.Poisoned == transports.UnknownDepth {
				return fmt.Errorf("the broker does not tell how many events of %s are poisoned", name)
			}
			if d.Poisoned > limit {
				atLeast := ""
				if d.AtLeast.Poisoned {
					atLeast = "at least "
				}
				over = append(over, fmt.Sprintf("%s has %s%d", name, atLeast, d.Poisoned))
			}
		}
		if len(over) > 0 {
			return errors.New("the limit is " + plural(limit, "event") + ", and " + strings.Join(over, ", "))
		}
		return nil
	}
}

func (a *app) health(ctx context.Context, checks []health.Check) error {
	results := []healthResult{}
	tab := &table{header: []string{"CHECK", "STATUS", "OUTPUT"}}
	var failed []string
	for _, check := range checks {
		r := healthResult{Check: check.Name, Status: "pass"}
		call, cancel := a.bounded(ctx)
		if err := check.Func(call); err != nil {
			r.Status, r.Output = "fail", oneLine(a.explain(err), a.transport, a.management)
			failed = append(failed, r.Check+" ("+r.Output+")")
		}
		cancel()
		results = append(results, r)
		tab.add(r.Check, r.Status, r.Output)
	}
	if err := a.print(results, tab); err != nil {
		return err
	}
	if len(failed) > 0 {
		return errors.New("unhealthy: " + strings.Join(failed, ", "))
	}
	return nil
}
