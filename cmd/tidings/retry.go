package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/gotidings/tidings/transports"
)

// retryOptions are the flags of poison retry and outbox retry.
type retryOptions struct {
	dryRun bool
	atOnce bool
	rate   float64
	wait   time.Duration
	settle time.Duration
}

func (o *retryOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be moved, and move nothing")
	f.BoolVar(&o.atOnce, "at-once", false, "move all without waiting for what becomes of the first ones")
	f.Float64Var(&o.rate, "rate", 0, "the most events to move in a second, such as 0.5 or 20; 0 means no limit")
	f.DurationVar(&o.wait, "wait", time.Minute, "how long a step may take to be handled")
	f.DurationVar(&o.settle, "settle", 10*time.Second, "where it can't be seen whether an event is handled, as on RabbitMQ: how long after the queue has run empty none may have come back")
}

func (o *retryOptions) check() error {
	switch {
	case o.rate < 0 || math.IsNaN(o.rate) || math.IsInf(o.rate, 0):
		return usagef("--rate is %v; it takes a number of events in a second", o.rate)
	case o.rate > 0 && o.rate < 0.001:
		return usagef("--rate is %v; it takes at least 0.001", o.rate)
	case o.wait <= 0 || o.settle <= 0:
		return usagef("--wait and --settle take a duration such as 30s")
	}
	return nil
}

// retryHelp is common to the two commands.
const retryHelp = `
Unless --at-once is given, it goes in steps: one event, then ten, then the rest. After each
step it waits until the events are handled, and stops with the exit status 1 when one of
them comes back to the poison queue, with the same fault or another: what was not moved
stays where it is. It also stops, with the exit status 1, when a step is not done within
--wait; then perhaps no consumer runs. The status is 1, too, when no event is chosen, or when
some have left the poison queue before they could be moved.

An event is stored in the queue before it is taken out of the poison queue. When the
program is killed it is in one of them, or for a moment in both; nothing is lost, and a
second copy is met by deduplication or an inbox where there is one. Run it again.

On SQL it is known of each event whether it is handled. RabbitMQ does not tell what is in
flight or waits for a redelivery: there a step counts as handled when the subscription's
queue has run empty and none has come back for the time of --settle. To be sure, make
that longer than all retries of the subscription take (13 minutes by default).`

func (a *app) poisonRetry() *cobra.Command {
	var sel selection
	var opts retryOptions
	cmd := &cobra.Command{
		Use:   "retry [ID...]",
		Short: "Put poisoned events back to the subscription that failed, step by step",
		Long: `Puts poisoned events back to the subscription that could not handle them, and to no other,
for a fresh start.
` + retryHelp,
		Example: `  tidings poison retry -s shop.send-welcome-email --fingerprint 38380c54
  tidings poison retry -s shop.send-welcome-email --all --rate 20
  tidings poison retry 0195f3a2-7c1e-7abc-8def-0123456789ab --dry-run`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			sel.ids = args
			if err := sel.check(true); err != nil {
				return err
			}
			if err := opts.check(); err != nil {
				return err
			}
			return a.with(cmd.Context(), look, func(t transports.Transport) error {
				return a.retry(cmd.Context(), t, &sel, opts)
			})
		},
	}
	sel.flags(cmd)
	sel.mustChoose(cmd)
	opts.flags(cmd)
	return cmd
}

// retryResult is what became of one subscription's events.
type retryResult struct {
	Subscription string `json:"subscription"`
	Chosen       int    `json:"chosen"`
	Moved        int    `json:"moved"`
	Back         int    `json:"back"`    // of those moved, seen in the poison queue again
	Waiting      *int   `json:"waiting"` // of those moved, not handled yet; null when it can't be told
}

// retry moves what was chosen, one subscription after the other, and prints what became of
// it also when it has stopped.
func (a *app) retry(ctx context.Context, t transports.Transport, sel *selection, opts retryOptions) error {
	all, err := a.choose(ctx, t, sel)
	if err != nil {
		return err
	}
	results := []retryResult{}
	tab := &table{header: []string{"SUBSCRIPTION", "CHOSEN", "MOVED", "BACK", "WAITING"}}
	var fault error
	for _, c := range all {
		var r retryResult
		if r, fault = a.retryOne(ctx, t, c, opts); fault == nil && !opts.dryRun {
			fault = shortfall("moved", c.subscription, r.Moved, r.Chosen)
		}
		results = append(results, r)
		tab.add(r.Subscription, strconv.Itoa(r.Chosen), strconv.Itoa(r.Moved), strconv.Itoa(r.Back), countText(r.Waiting))
		if fault != nil {
			break
		}
	}
	if err := a.print(results, tab); err != nil {
		return err
	}
	return fault
}

// chunk is how many events one call of the transport moves, if --rate allows it.
const chunk = 500

// steps are the sizes of the steps before the rest.
var steps = []int{1, 10}

// redrive moves events of one subscription.
type redrive struct {
	app          *app
	transport    transports.Transport
	queue        transports.PoisonQueue
	subscription string
	seen         map[transports.PoisonHandle]bool // in the poison queue before anything was moved
	opts         retryOptions
	result       *retryResult
	next         time.Time // when --rate allows the next move
}

func (a *app) retryOne(ctx context.Context, t transports.Transport, c *chosen, opts retryOptions) (retryResult, error) {
	result := retryResult{Subscription: c.subscription, Chosen: len(c.events)}
	queue, err := poisonQueue(t)
	if err != nil || opts.dryRun {
		return result, err
	}
	r := &redrive{app: a, transport: t, queue: queue, subscription: c.subscription, seen: c.seen, opts: opts, result: &result}
	rest := c.events
	if opts.atOnce {
		return result, r.move(ctx, rest, nil, 0)
	}
	for i := 0; len(rest) > 0; i++ {
		size := len(rest)
		if i < len(steps) {
			size = min(size, steps[i])
		}
		step := rest[:size]
		rest = rest[size:]
		if err := r.step(ctx, step, len(rest)); err != nil {
			return result, err
		}
	}
	return result, nil
}

// step moves some events and waits for what becomes of them. left is how many follow.
func (r *redrive) step(ctx context.Context, events []chosenEvent, left int) error {
	before := r.result.Moved
	watch := r.watch()
	if err := r.move(ctx, events, watch, left); err != nil {
		return err
	}
	if r.result.Moved == before { // somebody else has taken them
		return nil
	}
	r.app.say("moved %s of %s, waiting until handled", plural(r.result.Moved-before, "event"), r.subscription)
	waiting, err := watch.await(ctx)
	if err != nil {
		return err
	}
	r.result.Waiting = waiting
	if err := r.comeBack(ctx, watch, left); err != nil {
		return err
	}
	if watch.late == nil {
		return nil
	}
	text := ""
	if left > 0 {
		text = " " + notMoved(left)
	}
	return fmt.Errorf("stopped: %w; is a consumer running?%s", watch.late, text)
}

func notMoved(n int) string {
	if n == 1 {
		return "1 event was not moved"
	}
	return plural(n, "event") + " were not moved"
}

// comeBack returns an error when events of a step are poisoned again.
func (r *redrive) comeBack(ctx context.Context, w *watch, left int) error {
	if err := w.look(ctx); err != nil {
		return err
	}
	if len(w.back) == 0 {
		return nil
	}
	r.result.Back = len(w.back)
	p := w.back[0]
	what := "another fault than before"
	if w.same {
		what = "the same fault"
	}
	text := fmt.Sprintf("stopped: %s of %s came back with %s (%s: %s)", plural(len(w.back), "event"), r.subscription, what, p.Fingerprint(), short(p.Reason))
	if left > 0 {
		text += "; " + notMoved(left)
	}
	return errors.New(text)
}

// move moves events in chunks, at the rate, and looks between two chunks whether some of w
// have come back already. w is nil with --at-once.
func (r *redrive) move(ctx context.Context, events []chosenEvent, w *watch, left int) error {
	size := chunk
	var interval time.Duration
	if rate := r.opts.rate; rate > 0 { // at most about one call in a second
		size = min(chunk, max(1, int(rate)))
		interval = time.Duration(float64(size) / rate * float64(time.Second))
	}
	for i, part := range slices.Collect(slices.Chunk(events, size)) {
		if i > 0 && w != nil {
			if err := r.comeBack(ctx, w, left+len(events)-i*size); err != nil {
				return err
			}
		}
		if err := sleep(ctx, time.Until(r.next)); err != nil {
			return err
		}
		r.next = time.Now().Add(interval)
		call, cancel := r.app.bounded(ctx)
		n, err := r.queue.RequeuePoisoned(call, r.subscription, handlesOf(part)...)
		cancel()
		if r.result.Moved += n; err != nil {
			return err
		}
		if w != nil {
			w.add(part)
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
