package watermill

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gotidings/tidings/transports"
)

// topicsOf returns the topics to subscribe to for s: without those that another one
// covers, since Watermill would deliver a message once for each. It returns every
// reason why s can't be had.
func (c Config) topicsOf(s transports.Subscription) ([]string, error) {
	topics := uncovered(s.Topics)
	var faults []error
	for i, topic := range topics {
		if transports.HasWildcard(topic) && !c.Patterns {
			faults = append(faults, fmt.Errorf("topic pattern %q: %w; Config.Patterns says whether the Watermill subscriber understands them", topic, transports.ErrUnsupported))
		}
		for _, other := range topics[:i] {
			if overlap(topic, other) {
				faults = append(faults, fmt.Errorf("topic patterns %q and %q: %w: a message that both match would come twice", other, topic, transports.ErrUnsupported))
			}
		}
	}
	if s.Ordered && !c.Ordered {
		faults = append(faults, fmt.Errorf("ordered subscription: %w; Config.Ordered says whether the Watermill subscriber keeps an order", transports.ErrUnsupported))
	}
	if s.Ordered && len(topics) > 1 {
		faults = append(faults, fmt.Errorf("ordered subscription to %d topics: %w: Watermill has no order between topics", len(topics), transports.ErrUnsupported))
	}
	if s.Ephemeral && !c.Ephemeral {
		faults = append(faults, fmt.Errorf("ephemeral subscription: %w; Config.Ephemeral says whether the Watermill subscriber's leave nothing behind", transports.ErrUnsupported))
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("subscription %q: %w", s.Name, errors.Join(faults...))
	}
	return topics, nil
}

// uncovered returns patterns without those whose topics another one has too.
func uncovered(patterns []string) []string {
	var kept []string
	for i, p := range patterns {
		words := strings.Split(p, ".")
		covered := false
		for j, other := range patterns {
			// Of two that cover each other the first stays.
			if i != j && covers(strings.Split(other, "."), words) && (j < i || !covers(words, strings.Split(other, "."))) {
				covered = true
			}
		}
		if !covered {
			kept = append(kept, p)
		}
	}
	return slices.Clip(kept)
}

// covers reports whether pattern a matches every topic that pattern b matches. It can
// miss a case, as between "#.*" and "*.#", which then overlap.
func covers(a, b []string) bool {
	switch {
	case len(a) == 0:
		return len(b) == 0
	case a[0] == "#":
		return covers(a[1:], b) || len(b) > 0 && covers(a, b[1:])
	case len(b) == 0 || b[0] == "#":
		return false
	default:
		return (a[0] == "*" || a[0] == b[0]) && covers(a[1:], b[1:])
	}
}

// overlap reports whether there is a topic that both patterns match.
func overlap(a, b string) bool { return overlapWords(strings.Split(a, "."), strings.Split(b, ".")) }

func overlapWords(a, b []string) bool {
	switch {
	case len(a) == 0 && len(b) == 0:
		return true
	case len(a) > 0 && a[0] == "#":
		return overlapWords(a[1:], b) || len(b) > 0 && overlapWords(a, b[1:])
	case len(b) > 0 && b[0] == "#":
		return overlapWords(b, a)
	case len(a) == 0 || len(b) == 0:
		return false
	default:
		return (a[0] == b[0] || a[0] == "*" || b[0] == "*") && overlapWords(a[1:], b[1:])
	}
}

// admit reports whether a new consumer of s may be beside those that live already on
// the same Watermill subscriber.
func (c Config) admit(s transports.Subscription, topics []string, live []*consumer) error {
	for _, other := range live {
		same := s.Name == other.name
		switch {
		case same && (s.Ephemeral || other.ephemeral):
			return fmt.Errorf("subscription %q exists already, and an ephemeral one is not shared", s.Name)
		case c.Subscriber != nil: // each has a subscriber of its own
		case same && c.Sharing != Competing:
			return fmt.Errorf("a second consumer of subscription %q: %w by one Watermill subscriber, unless Config.Sharing is Competing: both might get every message", s.Name, transports.ErrUnsupported)
		case !same && c.Sharing != FanOut && anyOverlap(topics, other.topics):
			return fmt.Errorf("subscriptions %q and %q have a topic in common: %w by one Watermill subscriber, unless Config.Sharing is FanOut: each might get a part of the messages; give each its own with Config.Subscriber", other.name, s.Name, transports.ErrUnsupported)
		}
	}
	return nil
}

func anyOverlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(x string) bool {
		return slices.ContainsFunc(b, func(y string) bool { return overlap(x, y) })
	})
}
