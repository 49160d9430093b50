package main

import (
	"context"

	"github.com/gotidings/tidings/transports"
)

// chosen is what a selection has found in one poison queue.
type chosen struct {
	subscription string
	events       []chosenEvent
}

// chosenEvent is as much of a poisoned event as is needed to move it.
type chosenEvent struct {
	key         transports.EventKey
	fingerprint string
}

func (c *chosen) keys() []transports.EventKey { return keysOf(c.events) }

func keysOf(events []chosenEvent) []transports.EventKey {
	keys := make([]transports.EventKey, len(events))
	for i, e := range events {
		keys[i] = e.key
	}
	return keys
}

// choose lists before anything is moved: an event that fails again meanwhile must not be
// met twice. An id that is not there is an error.
func (a *app) choose(ctx context.Context, t transports.Transport, sel *selection) ([]*chosen, error) {
	var all []*chosen
	found := make(map[string]bool)
	err := a.eachPoisoned(ctx, t, sel, func(subscription string, p transports.Poisoned) {
		found[p.Message.UUID] = true
		if len(all) == 0 || all[len(all)-1].subscription != subscription {
			all = append(all, &chosen{subscription: subscription})
		}
		last := all[len(all)-1]
		last.events = append(last.events, chosenEvent{p.Key(), p.Fingerprint()})
	})
	if err == nil {
		err = sel.missing(found, "poisoned")
	}
	return all, err
}
