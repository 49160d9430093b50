package main

import (
	"context"
	"crypto/sha256"
	"errors"

	"github.com/gotidings/tidings/transports"
)

// chosen is what a selection has found in one poison queue.
type chosen struct {
	subscription string
	events       []chosenEvent
	seen         map[transports.PoisonHandle]bool // chosen or not: what is there beyond these has come since
}

// chosenEvent is as much of a poisoned event as is needed to move it.
type chosenEvent struct {
	handle      transports.PoisonHandle
	key         transports.EventKey
	payload     [sha256.Size]byte // tells events without an id apart
	fingerprint string
}

func (c *chosen) handles() []transports.PoisonHandle { return handlesOf(c.events) }

func handlesOf(events []chosenEvent) []transports.PoisonHandle {
	handles := make([]transports.PoisonHandle, len(events))
	for i, e := range events {
		handles[i] = e.handle
	}
	return handles
}

var errNothing = errors.New("no poisoned event is chosen by this; nothing was changed; tidings poison list --events shows what there is")

// choose lists before anything is changed: an event that fails again meanwhile must not be
// met twice. An id that is not there is an error, and so is to choose nothing.
func (a *app) choose(ctx context.Context, t transports.Transport, sel *selection) ([]*chosen, error) {
	var all []*chosen
	found := make(map[string]bool)
	var c *chosen
	err := a.eachQueue(ctx, t, sel, func(ctx context.Context, queue transports.PoisonQueue, subscription string) error {
		c = &chosen{subscription: subscription, seen: make(map[transports.PoisonHandle]bool)}
		err := sel.each(ctx, queue, subscription, func(p transports.Poisoned, taken bool) {
			c.seen[p.Handle] = true
			if taken {
				found[p.Message.UUID] = true
				c.events = append(c.events, chosenEvent{p.Handle, p.Key(), sha256.Sum256(p.Message.Payload), p.Fingerprint()})
			}
		})
		if len(c.events) > 0 {
			all = append(all, c)
		}
		return err
	})
	if err == nil {
		err = sel.missing(found, "poisoned")
	}
	if err == nil && len(all) == 0 {
		err = errNothing
	}
	return all, err
}
