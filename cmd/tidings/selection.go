package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gotidings/tidings/transports"
)

// selection chooses poisoned events by flags and arguments. The zero value chooses all.
type selection struct {
	subscriptions []string
	ids           []string // the arguments
	source        string
	fingerprint   string
	olderThan     time.Duration
	newerThan     time.Duration
	limit         int
	all           bool
}

func (s *selection) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&s.subscriptions, "subscription", "s", nil, "`NAME` of a subscription, such as shop.send-welcome-email; may be repeated; all when not given, where the broker can list them")
	s.filters(cmd)
}

// filters are the flags that choose within a queue.
func (s *selection) filters(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.fingerprint, "fingerprint", "", "only events of this fault, as poison list shows it")
	f.StringVar(&s.source, "source", "", "only events of this CloudEvents source")
	f.DurationVar(&s.olderThan, "older-than", 0, "only events that failed longer ago than this, such as 1h")
	f.DurationVar(&s.newerThan, "newer-than", 0, "only events that failed within this time")
}

// mustChoose adds the flags of commands that change something, which need to be told what.
func (s *selection) mustChoose(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&s.all, "all", false, "every event that the other flags leave; needed when there are no ids and no --fingerprint")
	f.IntVar(&s.limit, "limit", 0, "at most so many events of a subscription, the oldest first; 0 means no limit")
}

func (s *selection) check(changes bool) error {
	switch {
	case s.olderThan < 0 || s.newerThan < 0:
		return usagef("--older-than and --newer-than take a duration such as 1h")
	case s.limit < 0:
		return usagef("--limit is %d; it takes at least 1, or 0 for no limit", s.limit)
	case slices.Contains(s.ids, ""):
		return usagef("an event id is empty")
	case changes && len(s.ids) == 0 && s.fingerprint == "" && !s.all:
		return usagef("which events? give their ids, or --fingerprint, or --all")
	case len(s.ids) > 0 && s.all:
		return usagef("give ids or --all, and not both")
	}
	return nil
}

func (s *selection) takes(p *transports.Poisoned, now time.Time) bool {
	switch {
	case len(s.ids) > 0 && !slices.Contains(s.ids, p.Message.UUID),
		s.source != "" && p.Key().Source != s.source,
		s.fingerprint != "" && !strings.EqualFold(p.Fingerprint(), s.fingerprint),
		s.olderThan > 0 && now.Sub(p.LastFailure) <= s.olderThan, // an unknown time is long ago
		s.newerThan > 0 && now.Sub(p.LastFailure) > s.newerThan:
		return false
	}
	return true
}

// each calls fn with the events of one poison queue, oldest first, until it has chosen as
// many as the limit allows.
func (s *selection) each(ctx context.Context, queue transports.PoisonQueue, subscription string, fn func(p transports.Poisoned, taken bool)) error {
	now := time.Now()
	n := 0
	for p, err := range queue.Poisoned(ctx, subscription, transports.PoisonPage{}) {
		if err != nil {
			return err
		}
		taken := s.takes(&p, now)
		fn(p, taken)
		if taken {
			n++
		}
		if taken && n == s.limit {
			break
		}
	}
	return nil
}

// missing returns an error that names the ids that were asked for and not found.
func (s *selection) missing(found map[string]bool, where string) error {
	var absent []string
	for _, id := range s.ids {
		if !found[id] {
			absent = append(absent, fmt.Sprintf("%.80q", id))
		}
	}
	if len(absent) == 0 {
		return nil
	}
	var options strings.Builder
	for _, name := range s.subscriptions {
		options.WriteString(" -s " + name)
	}
	return fmt.Errorf("no event %s is %s; tidings poison list --events%s shows what is", strings.Join(absent, ", "), where, &options)
}

// poisonQueue returns the poison queues of a transport.
func poisonQueue(t transports.Transport) (transports.PoisonQueue, error) {
	queue, ok := t.(transports.PoisonQueue)
	if !ok {
		return nil, fmt.Errorf("poison queues: %w", transports.ErrUnsupported)
	}
	return queue, nil
}

// names returns the subscriptions that were asked for, or all there are but ephemeral ones.
func (s *selection) names(ctx context.Context, a *app, t transports.Transport) ([]string, error) {
	if len(s.subscriptions) > 0 {
		return s.subscriptions, nil
	}
	list, err := a.list(ctx, t)
	if errors.Is(err, errCannotList) {
		err = usagef("%w, or name them by --subscription", err)
	}
	if err != nil {
		return nil, err
	}
	var all []string
	for _, info := range list {
		if !info.Ephemeral {
			all = append(all, info.Name)
		}
	}
	return all, nil
}
