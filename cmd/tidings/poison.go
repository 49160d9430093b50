package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/gotidings/tidings/transports"
)

func (a *app) poisonCommand() *cobra.Command {
	return group("poison", "Events that could not be handled: list, show, retry, discard",
		a.poisonList(), a.poisonShow(), a.poisonRetry(), a.poisonDiscard())
}

// poisonGroup is the events of one subscription that one fault has poisoned.
type poisonGroup struct {
	Subscription string     `json:"subscription"`
	Fingerprint  string     `json:"fingerprint"`
	Count        int        `json:"count"`
	Oldest       *time.Time `json:"oldest"` // time of failure
	Newest       *time.Time `json:"newest"`
	ErrorType    string     `json:"errorType"`
	Reason       string     `json:"reason"` // of the newest
}

// poisonEvent is one poisoned event.
type poisonEvent struct {
	Subscription string            `json:"subscription"`
	ID           string            `json:"id"`
	Source       string            `json:"source"`
	Topic        string            `json:"topic"`
	Fingerprint  string            `json:"fingerprint"`
	Attempts     int               `json:"attempts"`
	FirstFailure *time.Time        `json:"firstFailure"`
	LastFailure  *time.Time        `json:"lastFailure"`
	Service      string            `json:"service"`
	Host         string            `json:"host"`
	ErrorType    string            `json:"errorType"`
	Reason       string            `json:"reason"`
	Stack        string            `json:"stack,omitempty"`
	Metadata     map[string]string `json:"metadata,omitempty"`
	Data         json.RawMessage   `json:"data,omitempty"`       // when it is JSON
	DataText     string            `json:"dataText,omitempty"`   // when it is other text
	DataBase64   string            `json:"dataBase64,omitempty"` // when it is neither
}

func eventOf(subscription string, p transports.Poisoned) poisonEvent {
	return poisonEvent{
		Subscription: subscription, ID: p.Message.UUID, Source: p.Key().Source, Topic: transports.Topic(p.Message), Fingerprint: p.Fingerprint(),
		Attempts: p.Attempts, FirstFailure: timestamp(p.FirstFailure), LastFailure: timestamp(p.LastFailure),
		Service: p.Service, Host: p.Host, ErrorType: p.ErrorType, Reason: p.Reason,
	}
}

// withData adds what the list leaves out.
func (e poisonEvent) withData(p transports.Poisoned) poisonEvent {
	e.Stack = p.Stack
	e.Metadata = maps.Clone(map[string]string(p.Message.Metadata))
	maps.DeleteFunc(e.Metadata, func(key, _ string) bool { return strings.HasPrefix(key, transports.HeaderPrefix) })
	switch data := p.Message.Payload; {
	case json.Valid(data):
		e.Data = json.RawMessage(data)
	case utf8.Valid(data):
		e.DataText = string(data)
	default:
		e.DataBase64 = base64.StdEncoding.EncodeToString(data)
	}
	return e
}

func (a *app) poisonList() *cobra.Command {
	var sel selection
	var single bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Count poisoned events by subscription and fault, or list them",
		Long: `Counts poisoned events, grouped by subscription and by fault. The fingerprint of a fault
is the same for all errors of one type and one text, whatever numbers, ids and quoted
values stand in it; poison retry and discard take it. With --events, each event is listed.

On RabbitMQ the queue is read and given back, so its length matters.`,
		Example: `  tidings poison list
  tidings poison list -s shop.send-welcome-email --older-than 1h
  tidings poison list --events --fingerprint 38380c54 -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := sel.check(false); err != nil {
				return err
			}
			return a.with(cmd.Context(), look, func(t transports.Transport) error {
				return a.listPoison(cmd.Context(), t, &sel, single)
			})
		},
	}
	sel.flags(cmd)
	cmd.Flags().IntVar(&sel.limit, "limit", 0, "at most so many events of a subscription, the oldest first; 0 means no limit")
	cmd.Flags().BoolVar(&single, "events", false, "list each event")
	return cmd
}

func (a *app) listPoison(ctx context.Context, t transports.Transport, sel *selection, single bool) error {
	groups := []*poisonGroup{}
	events := []poisonEvent{}
	err := a.eachPoisoned(ctx, t, sel, func(subscription string, p transports.Poisoned) {
		if single {
			events = append(events, eventOf(subscription, p))
			return
		}
		fingerprint := p.Fingerprint()
		i := slices.IndexFunc(groups, func(g *poisonGroup) bool {
			return g.Subscription == subscription && g.Fingerprint == fingerprint
		})
		if i < 0 {
			i = len(groups)
			groups = append(groups, &poisonGroup{Subscription: subscription, Fingerprint: fingerprint})
		}
		groups[i].add(p)
	})
	if err != nil {
		return err
	}
	if single {
		tab := &table{header: []string{"SUBSCRIPTION", "ID", "SOURCE", "TOPIC", "FINGERPRINT", "ATTEMPTS", "FAILED", "REASON"}}
		for _, e := range events {
			tab.add(e.Subscription, e.ID, e.Source, e.Topic, e.Fingerprint, strconv.Itoa(e.Attempts), agoOf(e.LastFailure), short(e.Reason))
		}
		return a.print(events, tab)
	}
	slices.SortStableFunc(groups, func(x, y *poisonGroup) int {
		if x.Subscription != y.Subscription {
			return strings.Compare(x.Subscription, y.Subscription)
		}
		return y.Count - x.Count
	})
	tab := &table{header: []string{"SUBSCRIPTION", "FINGERPRINT", "EVENTS", "OLDEST", "NEWEST", "ERROR", "REASON"}}
	for _, g := range groups {
		tab.add(g.Subscription, g.Fingerprint, strconv.Itoa(g.Count), agoOf(g.Oldest), agoOf(g.Newest), g.ErrorType, short(g.Reason))
	}
	return a.print(groups, tab)
}

func (g *poisonGroup) add(p transports.Poisoned) {
	g.Count++
	at := timestamp(p.LastFailure)
	if g.Count == 1 || at != nil && (g.Newest == nil || !at.Before(*g.Newest)) {
		g.Newest, g.ErrorType, g.Reason = at, p.ErrorType, p.Reason
	}
	if at != nil && (g.Oldest == nil || at.Before(*g.Oldest)) {
		g.Oldest = at
	}
}

func agoOf(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return ago(*t)
}

// eachPoisoned calls fn with the chosen events of all chosen subscriptions.
func (a *app) eachPoisoned(ctx context.Context, t transports.Transport, sel *selection, fn func(subscription string, p transports.Poisoned)) error {
	return a.eachQueue(ctx, t, sel, func(ctx context.Context, queue transports.PoisonQueue, name string) error {
		return sel.each(ctx, queue, name, func(p transports.Poisoned, taken bool) {
			if taken {
				fn(name, p)
			}
		})
	})
}

// eachQueue calls fn with the poison queues of all chosen subscriptions, and a context that
// is bounded by --timeout.
func (a *app) eachQueue(ctx context.Context, t transports.Transport, sel *selection,
	fn func(ctx context.Context, queue transports.PoisonQueue, subscription string) error,
) error {
	queue, err := poisonQueue(t)
	if err != nil {
		return err
	}
	names, err := sel.names(ctx, a, t)
	if err != nil {
		return err
	}
	for _, name := range names {
		ctx, cancel := a.bounded(ctx)
		err := fn(ctx, queue, name)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *app) poisonShow() *cobra.Command {
	var sel selection
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show a poisoned event with its failure, metadata and data",
		Long: `Shows a poisoned event with all that is known of it: why, when and where it failed, the
stack of a panic, its CloudEvents metadata and its data. An event that several
subscriptions could not handle is shown for each of them.`,
		Example: `  tidings poison show 0195f3a2-7c1e-7abc-8def-0123456789ab`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			sel.ids = args
			if err := sel.check(false); err != nil {
				return err
			}
			return a.with(cmd.Context(), look, func(t transports.Transport) error {
				return a.showPoison(cmd.Context(), t, &sel)
			})
		},
	}
	sel.flags(cmd)
	return cmd
}

func (a *app) showPoison(ctx context.Context, t transports.Transport, sel *selection) error {
	events := []poisonEvent{}
	found := make(map[string]bool)
	err := a.eachPoisoned(ctx, t, sel, func(subscription string, p transports.Poisoned) {
		found[p.Message.UUID] = true
		events = append(events, eventOf(subscription, p).withData(p))
	})
	if err == nil {
		err = sel.missing(found, "poisoned")
	}
	if err != nil {
		return err
	}
	if a.output == "json" {
		return a.printJSON(events)
	}
	for i, e := range events {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		e.describe(a)
	}
	return nil
}

// describe prints an event for people.
func (e *poisonEvent) describe(a *app) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(a.out, "%-15s %s\n", name, printable(value))
		}
	}
	when := func(t *time.Time) string {
		if t == nil {
			return ""
		}
		return t.Format(time.RFC3339) + " (" + ago(*t) + " ago)"
	}
	line("id", e.ID)
	line("source", e.Source)
	line("topic", e.Topic)
	line("subscription", e.Subscription)
	line("fingerprint", e.Fingerprint)
	line("reason", e.Reason)
	line("error type", e.ErrorType)
	line("attempts", strconv.Itoa(e.Attempts))
	line("first failure", when(e.FirstFailure))
	line("last failure", when(e.LastFailure))
	line("service", e.Service)
	line("host", e.Host)
	for _, key := range slices.Sorted(maps.Keys(e.Metadata)) {
		line("metadata", key+": "+e.Metadata[key])
	}
	for l := range strings.SplitSeq(e.Stack, "\n") {
		line("stack", l)
	}
	line("data", string(e.Data)+e.DataText)
	line("data (base64)", e.DataBase64)
}

func (a *app) poisonDiscard() *cobra.Command {
	var sel selection
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "discard [ID...]",
		Short: "Delete poisoned events for good",
		Long: `Deletes poisoned events for good, those of the ids or of the flags. With --dry-run they are
counted and stay. An event that fails again while the command runs is not deleted.

The exit status is 1 when no event is chosen, or when some have left the poison queue before
they could be deleted.`,
		Example: `  tidings poison discard -s shop.audit --fingerprint 38380c54 --dry-run
  tidings poison discard -s shop.audit --fingerprint 38380c54`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			sel.ids = args
			if err := sel.check(true); err != nil {
				return err
			}
			return a.with(cmd.Context(), look, func(t transports.Transport) error {
				return a.discardPoison(cmd.Context(), t, &sel, dryRun)
			})
		},
	}
	sel.flags(cmd)
	sel.mustChoose(cmd)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be deleted, and delete nothing")
	return cmd
}

// discardResult is what became of one subscription's events.
type discardResult struct {
	Subscription string `json:"subscription"`
	Chosen       int    `json:"chosen"`
	Discarded    int    `json:"discarded"`
}

func (a *app) discardPoison(ctx context.Context, t transports.Transport, sel *selection, dryRun bool) error {
	queue, err := poisonQueue(t)
	if err != nil {
		return err
	}
	all, err := a.choose(ctx, t, sel)
	if err != nil {
		return err
	}
	results := []discardResult{}
	tab := &table{header: []string{"SUBSCRIPTION", "CHOSEN", "DISCARDED"}}
	var fault error
	for _, c := range all {
		r := discardResult{Subscription: c.subscription, Chosen: len(c.events)}
		for handles := range slices.Chunk(c.handles(), chunk) {
			if dryRun {
				break
			}
			ctx, cancel := a.bounded(ctx)
			n, err := queue.DiscardPoisoned(ctx, c.subscription, handles...)
			cancel()
			if r.Discarded += n; err != nil {
				return fmt.Errorf("%s of %s were discarded, and then: %w", plural(r.Discarded, "event"), c.subscription, err)
			}
		}
		results = append(results, r)
		tab.add(r.Subscription, strconv.Itoa(r.Chosen), strconv.Itoa(r.Discarded))
		if !dryRun {
			fault = errors.Join(fault, shortfall("discarded", c.subscription, r.Discarded, r.Chosen))
		}
	}
	if err := a.print(results, tab); err != nil {
		return err
	}
	return fault
}

// shortfall is the error of a command that has found less than it had chosen.
func shortfall(done, subscription string, n, chosen int) error {
	if n == chosen {
		return nil
	}
	return fmt.Errorf("%s %d of %s of %s; the others have left the poison queue since they were listed", done, n, plural(chosen, "event"), subscription)
}
