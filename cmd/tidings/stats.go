package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// depthJSON is a depth in a document: null is what can't be told.
type depthJSON struct {
	Ready    *int `json:"ready"`
	Delayed  *int `json:"delayed"`
	InFlight *int `json:"inFlight"`
	Poisoned *int `json:"poisoned"`

	AtLeast []string `json:"atLeast,omitempty"` // the counts that are lower bounds
}

var depthHeader = []string{"READY", "DELAYED", "IN FLIGHT", "POISONED"}

func depthOf(d transports.Depth) depthJSON {
	j := depthJSON{Ready: count(d.Ready), Delayed: count(d.Delayed), InFlight: count(d.InFlight), Poisoned: count(d.Poisoned)}
	for _, bound := range []struct {
		name string
		is   bool
	}{{"ready", d.AtLeast.Ready}, {"delayed", d.AtLeast.Delayed}, {"inFlight", d.AtLeast.InFlight}, {"poisoned", d.AtLeast.Poisoned}} {
		if bound.is {
			j.AtLeast = append(j.AtLeast, bound.name)
		}
	}
	return j
}

func (d depthJSON) cells() []string {
	cells := make([]string, 0, len(depthHeader))
	for _, c := range []struct {
		name string
		n    *int
	}{{"ready", d.Ready}, {"delayed", d.Delayed}, {"inFlight", d.InFlight}, {"poisoned", d.Poisoned}} {
		text := countText(c.n)
		if slices.Contains(d.AtLeast, c.name) {
			text = ">=" + text
		}
		cells = append(cells, text)
	}
	return cells
}

// stat is a subscription with what it holds.
type stat struct {
	Subscription string `json:"subscription"`
	depthJSON
	AgeSeconds *float64 `json:"ageSeconds"` // of the oldest event that waits; null when it can't be told
}

func (a *app) statsCommand() *cobra.Command {
	var sel selection
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Count what waits in subscriptions",
		Long: `Counts, for each durable subscription, the events that are ready, that wait for their time,
that are in flight, and that are poisoned; on SQL with the age of the oldest that is not
handled. ">=" is before a count that is a lower bound, since there are too many to count
cheaply. A dash is what the broker does not tell: over AMQP what is in flight, and on
RabbitMQ what is delayed. --management-url tells what is in flight, some seconds late.`,
		Example: `  tidings stats
  tidings stats -s shop.audit -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), look, func(t transports.Transport) error {
				return a.stats(cmd.Context(), t, &sel)
			})
		},
	}
	cmd.Flags().StringArrayVarP(&sel.subscriptions, "subscription", "s", nil, "`NAME` of a subscription; may be repeated; all when not given, where the broker can list them")
	return cmd
}

func (a *app) stats(ctx context.Context, t transports.Transport, sel *selection) error {
	reporter, err := a.depths(t)
	if err != nil {
		return err
	}
	names, err := sel.names(ctx, a, t)
	if err != nil {
		return err
	}
	ages := make(map[string]time.Duration)
	log, aged := t.(*tsql.Transport)
	if aged {
		call, cancel := a.bounded(ctx)
		backlogs, err := log.Backlogs(call, "")
		cancel()
		if err != nil {
			return err
		}
		for _, b := range backlogs {
			ages[b.Subscription] = b.Age
		}
	}
	stats := []stat{}
	tab := &table{header: append([]string{"SUBSCRIPTION"}, append(depthHeader, "AGE")...)}
	for _, name := range names {
		call, cancel := a.bounded(ctx)
		d, err := reporter.Depth(call, name)
		cancel()
		if err != nil {
			return err
		}
		s := stat{Subscription: name, depthJSON: depthOf(d)}
		ageText := "-"
		if oldest, ok := ages[name]; ok {
			seconds := oldest.Seconds()
			s.AgeSeconds = &seconds
			ageText = age(oldest)
		}
		stats = append(stats, s)
		tab.add(append(append([]string{name}, s.cells()...), ageText)...)
	}
	return a.print(stats, tab)
}
