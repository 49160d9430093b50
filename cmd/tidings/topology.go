package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
)

func (a *app) topologyCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "topology",
		Short: "Compare the subscriptions that exist with those that services declare",
		Long: `Lists the subscriptions that exist with their topics and, on RabbitMQ, the arguments of
their queues. With --desired it says what the start of a service would change. FILE is
what bus.Topology() returns, as JSON; give one for each service.

  create    the subscription is missing
  bind      it exists, and would be bound to more topics
  stale     it is bound to topics that the service has no handler for any more; they stay
  conflict  its queue has other arguments, which can't be changed: the service would not start
  orphan    it has the service's prefix, and the service does not declare it any more
  none      it is as it should be
  unknown   it exists, and the broker does not tell more

The status is 1 when there is a conflict. Over AMQP alone only the existence of what is
desired can be seen; --management-url tells the rest.`,
		Example: `  tidings topology --management-url http://guest:guest@localhost:15672
  tidings topology --desired shop.json --desired billing.json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			desired, err := readDesired(files)
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), look, func(t transports.Transport) error {
				return a.topology(cmd.Context(), t, desired)
			})
		},
	}
	cmd.Flags().StringArrayVar(&files, "desired", nil, "`FILE` with a service's bus.Topology() as JSON; may be repeated")
	return cmd
}

// readDesired reads what services have exported.
func readDesired(files []string) ([]bus.Topology, error) {
	var all []bus.Topology
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, &usageError{fmt.Errorf("--desired: %w", err)}
		}
		var t bus.Topology
		if err := json.Unmarshal(content, &t); err != nil {
			return nil, usagef("--desired: %s is not what bus.Topology() returns, as JSON: %w", file, err)
		}
		if t.Service == "" || slices.ContainsFunc(t.Subscriptions, func(s bus.SubscriptionTopology) bool { return s.Name == "" }) {
			return nil, usagef("--desired: %s is not what bus.Topology() returns: a service or a subscription has no name", file)
		}
		all = append(all, t)
	}
	return all, nil
}

func (a *app) topology(ctx context.Context, t transports.Transport, desired []bus.Topology) error {
	existing, err := a.list(ctx, t)
	var changes []change
	switch {
	case errors.Is(err, errCannotList) && len(desired) > 0:
		a.say("AMQP can't list subscriptions: only whether the desired ones exist is looked at; --management-url tells the rest")
		if changes, err = a.probe(ctx, t, desired); err != nil {
			return err
		}
	case errors.Is(err, errCannotList):
		return usagef("%w, or look for those of a service by --desired", err)
	case err != nil:
		return err
	case len(desired) == 0:
		tab := &table{header: []string{"SUBSCRIPTION", "KIND", "TOPICS", "ARGUMENTS"}}
		for _, info := range existing {
			tab.add(info.Name, kindOf(info.Ephemeral), strings.Join(info.Topics, " "), arguments(info.Arguments))
		}
		return a.print(existing, tab)
	default:
		changes = compare(existing, desired)
	}
	tab := &table{header: []string{"CHANGE", "SUBSCRIPTION", "DETAIL"}}
	conflicts := 0
	for _, c := range changes {
		tab.add(c.Change, c.Subscription, c.Detail)
		if c.Change == conflict {
			conflicts++
		}
	}
	if err := a.print(changes, tab); err != nil {
		return err
	}
	if conflicts > 0 {
		return fmt.Errorf("%s in conflict with what is desired: subscribe under a new name, let the old queue run empty, and remove it", plural(conflicts, "subscription"))
	}
	return nil
}

// probe says which of the desired subscriptions exist, on a broker that can't list them.
func (a *app) probe(ctx context.Context, t transports.Transport, desired []bus.Topology) ([]change, error) {
	reporter, ok := t.(transports.DepthReporter)
	if !ok {
		return nil, errCannotList
	}
	changes := []change{}
	for _, service := range desired {
		for _, s := range service.Subscriptions {
			if s.Ephemeral {
				continue
			}
			call, cancel := a.bounded(ctx)
			_, err := reporter.Depth(call, s.Name)
			cancel()
			switch {
			case errors.Is(err, transports.ErrNoSubscription):
				changes = append(changes, change{create, s.Name, strings.Join(s.Topics, " ")})
			case err != nil:
				return nil, err
			default:
				changes = append(changes, change{unknown, s.Name, ""})
			}
		}
	}
	return changes, nil
}

// change is what the start of a service would do about a subscription.
type change struct {
	Change       string `json:"change"`
	Subscription string `json:"subscription"`
	Detail       string `json:"detail"`
}

// Kinds of changes, see the help of topology.
const (
	create   = "create"
	bind     = "bind"
	stale    = "stale"
	conflict = "conflict"
	orphan   = "orphan"
	none     = "none"
	unknown  = "unknown"
)

// compare returns what the start of services would change, and what they have left behind.
func compare(existing []transports.SubscriptionInfo, desired []bus.Topology) []change {
	changes := []change{}
	byName := make(map[string]transports.SubscriptionInfo, len(existing))
	for _, info := range existing {
		byName[info.Name] = info
	}
	declared := make(map[string]bool)
	for _, service := range desired {
		for _, s := range service.Subscriptions {
			declared[s.Name] = true
			if s.Ephemeral { // comes and goes with its processes
				continue
			}
			info, exists := byName[s.Name]
			if !exists {
				changes = append(changes, change{create, s.Name, strings.Join(s.Topics, " ")})
				continue
			}
			changes = append(changes, differences(info, s)...)
		}
	}
	for _, info := range existing {
		if info.Ephemeral || declared[info.Name] {
			continue
		}
		for _, service := range desired {
			if strings.HasPrefix(info.Name, service.Service+".") {
				changes = append(changes, change{orphan, info.Name, strings.Join(info.Topics, " ")})
				break
			}
		}
	}
	return changes
}

// differences compares a subscription that exists with the same one as it is desired.
func differences(info transports.SubscriptionInfo, s bus.SubscriptionTopology) (changes []change) {
	if info.Arguments != nil && s.Arguments != nil {
		var parts []string
		for _, key := range slices.Sorted(maps.Keys(merged(info.Arguments, s.Arguments))) {
			have, want := argument(info.Arguments, key), argument(s.Arguments, key)
			if have != want {
				parts = append(parts, fmt.Sprintf("%s is %s, wanted %s", key, have, want))
			}
		}
		if len(parts) > 0 {
			changes = append(changes, change{conflict, s.Name, strings.Join(parts, "; ")})
		}
	}
	if more := without(s.Topics, info.Topics); len(more) > 0 {
		changes = append(changes, change{bind, s.Name, strings.Join(more, " ")})
	}
	if gone := without(info.Topics, s.Topics); len(gone) > 0 {
		changes = append(changes, change{stale, s.Name, strings.Join(gone, " ")})
	}
	if len(changes) == 0 {
		changes = append(changes, change{none, s.Name, ""})
	}
	return changes
}

// without returns what is in a and not in b.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

func merged(a, b map[string]any) map[string]any {
	m := maps.Clone(a)
	maps.Copy(m, b)
	return m
}

// argument writes a value, of JSON or of Go, as JSON; numbers have no other form there.
func argument(args map[string]any, key string) string {
	value, ok := args[key]
	if !ok {
		return "not set"
	}
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(text)
}

func arguments(args map[string]any) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(args)) {
		parts = append(parts, key+"="+argument(args, key))
	}
	return strings.Join(parts, " ")
}
