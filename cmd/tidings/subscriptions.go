package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/rabbitmq"
)

// manager returns the client of RabbitMQ's management API, nil when there is none.
func (a *app) manager() (*rabbitmq.Management, error) {
	if a.management == "" || !a.isAMQP() {
		return nil, nil //nolint:nilnil // none is no fault
	}
	m, err := rabbitmq.NewManagement(rabbitmq.ManagementConfig{
		URL: a.management, BrokerURL: a.transport,
		// No connection is left behind: one command asks a few times.
		Client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment}},
	})
	if err != nil {
		return nil, &usageError{fmt.Errorf("--management-url: %w", err)}
	}
	return m, nil
}

// errCannotList is a usage error: what to do about it is to use other flags.
var errCannotList = usagef("AMQP can't list subscriptions: give --management-url")

// list returns the subscriptions of the broker.
func (a *app) list(ctx context.Context, t transports.Transport) ([]transports.SubscriptionInfo, error) {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	m, err := a.manager()
	if err != nil {
		return nil, err
	}
	if m != nil {
		return m.Subscriptions(ctx)
	}
	lister, ok := t.(transports.SubscriptionLister)
	if !ok {
		return nil, errCannotList
	}
	return lister.Subscriptions(ctx)
}

// depths returns what can count the messages of a subscription: the management API when it
// is given, which knows more.
func (a *app) depths(t transports.Transport) (transports.DepthReporter, error) {
	m, err := a.manager()
	if err != nil {
		return nil, err
	}
	if m != nil {
		return m, nil
	}
	if reporter, ok := t.(transports.DepthReporter); ok {
		return reporter, nil
	}
	return nil, fmt.Errorf("count events: %w", transports.ErrUnsupported)
}

func (a *app) subscriptionsCommand() *cobra.Command {
	return group("subscriptions", "Subscriptions at the broker: list, remove", a.subscriptionsList(), a.subscriptionsRemove())
}

func (a *app) subscriptionsList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the subscriptions that exist",
		Long: `Lists the subscriptions that exist at the broker, whoever made them, with the patterns of
their topics. On RabbitMQ it needs --management-url.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), look, func(t transports.Transport) error {
				list, err := a.list(cmd.Context(), t)
				if err != nil {
					return err
				}
				tab := &table{header: []string{"SUBSCRIPTION", "KIND", "TOPICS"}}
				for _, info := range list {
					tab.add(info.Name, kindOf(info.Ephemeral), strings.Join(info.Topics, " "))
				}
				return a.print(list, tab)
			})
		},
	}
}

func kindOf(ephemeral bool) string {
	if ephemeral {
		return "ephemeral"
	}
	return "durable"
}

func (a *app) subscriptionsRemove() *cobra.Command {
	var force, dryRun bool
	cmd := &cobra.Command{
		Use:   "remove NAME...",
		Short: "Delete subscriptions, with what waits in them",
		Long: `Deletes subscriptions that are no longer needed, with all that waits in them and their
poison queues. Services that still consume from one of them lose it, and end.

A subscription that holds events is not removed without --force. RabbitMQ does not tell
what is in flight or delayed.`,
		Example: `  tidings subscriptions remove shop.old-projection`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), look, func(t transports.Transport) error {
				return a.remove(cmd.Context(), t, args, force, dryRun)
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "remove also what holds events")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be removed, and remove nothing")
	return cmd
}

// removal is what became of one subscription.
type removal struct {
	Subscription string `json:"subscription"`
	Removed      bool   `json:"removed"`
	depthJSON
}

// remove looks at all of the subscriptions before it removes the first one.
func (a *app) remove(ctx context.Context, t transports.Transport, names []string, force, dryRun bool) error {
	remover, ok := t.(transports.SubscriptionRemover)
	reporter, counts := t.(transports.DepthReporter)
	if !ok || !counts {
		return fmt.Errorf("remove subscriptions: %w", transports.ErrUnsupported)
	}
	results := []removal{}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		call, cancel := a.bounded(ctx)
		d, err := reporter.Depth(call, name)
		cancel()
		if err != nil {
			return err
		}
		held := max(d.Ready, 0) + max(d.Delayed, 0) + max(d.InFlight, 0) + max(d.Poisoned, 0)
		if held > 0 && !force {
			return fmt.Errorf("%s holds %s, which would be deleted with it; nothing was removed; --force removes it", name, plural(held, "event"))
		}
		results = append(results, removal{Subscription: name, depthJSON: depthOf(d)})
	}
	tab := &table{header: append([]string{"SUBSCRIPTION", "REMOVED"}, depthHeader...)}
	var fault error
	for i := range results {
		r := &results[i]
		if !dryRun && fault == nil {
			call, cancel := a.bounded(ctx)
			if fault = remover.RemoveSubscription(call, r.Subscription); fault != nil {
				fault = fmt.Errorf("%s is not removed: %w", r.Subscription, fault)
			}
			cancel()
			r.Removed = fault == nil
		}
		tab.add(append([]string{r.Subscription, yesNo(r.Removed)}, r.cells()...)...)
	}
	return errors.Join(a.print(results, tab), fault)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
