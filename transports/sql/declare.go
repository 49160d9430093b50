package sql

import (
	"context"
	"fmt"
	"time"

	"github.com/gotidings/tidings/internal/dberr"
	"github.com/gotidings/tidings/transports"
)

// Start says where in the log a new subscription begins.
type Start int

// Where a subscription can begin.
const (
	FromNow       Start = iota // with what is committed from now on
	FromBeginning              // with the oldest message that retention has left
)

// declare makes a group, or adds to its topics, and returns it. owner is that of an
// ephemeral one, "" of others.
func (s *store) declare(ctx context.Context, sub transports.Subscription, start Start, owner string) (*group, error) {
	if len(sub.Name) > maxNameBytes {
		return nil, fmt.Errorf("subscription name of %d bytes; it takes at most %d", len(sub.Name), maxNameBytes)
	}
	for _, pattern := range sub.Topics {
		if len(pattern) > maxNameBytes {
			return nil, fmt.Errorf("subscription %q: topic pattern of %d bytes; it takes at most %d", sub.Name, len(pattern), maxNameBytes)
		}
	}
	// Most often nothing is new, and then nothing has to be locked.
	if g, err := s.findGroup(ctx, s.db, sub, owner); err != nil || g != nil && g.has(sub.Topics) {
		return g, err
	}
	// Now is behind all that is committed already. The frontier stays there until the
	// group is made, and what is committed later is above it, or will be late.
	if err := s.catchUp(ctx); err != nil {
		return nil, err
	}
	var g *group
	err := s.inTx(ctx, func(tx Tx) (err error) {
		if err := s.dialect.lockFrontier(ctx, s, tx); err != nil {
			return err
		}
		var frontier, late int64
		if _, err := s.one(ctx, tx, []any{&frontier, &late}, `select {frontier}, (select coalesce(max(n), 0) from {late})`); err != nil {
			return err
		}
		if start == FromBeginning {
			frontier = 0
		}
		if g, err = s.findGroup(ctx, tx, sub, owner); err != nil {
			return err
		}
		if g == nil {
			_, err := s.exec(ctx, tx, `
insert into {subscriptions} (name, version, position, late_position, ephemeral, owner, lease_ms, created_ms, seen_ms)
values (?, 1, ?, ?, ?, ?, {now} + ?, {now}, {now})`, sub.Name, frontier, late, bit(owner != ""), owner, leaseOf(owner, s.cfg))
			if err != nil {
				return err
			}
			if g, err = s.findGroup(ctx, tx, sub, owner); err != nil {
				return err
			}
		}
		for _, pattern := range sub.Topics {
			if g.has([]string{pattern}) {
				continue
			}
			_, err := s.exec(ctx, tx, `insert into {bindings} (subscription_id, pattern, since, since_late) values (?, ?, ?, ?)`, g.id, pattern, frontier, late)
			if err != nil {
				return err
			}
			g.bindings = append(g.bindings, binding{pattern, frontier, late})
		}
		_, err = s.exec(ctx, tx, `update {subscriptions} set version = version + 1 where id = ?`, g.id)
		g.version = 0 // read anew by the first claim
		return err
	})
	return g, err
}

func leaseOf(owner string, cfg Config) int64 {
	if owner == "" {
		return 0
	}
	return millis(cfg.Lease)
}

// has reports whether the group has all of these patterns.
func (g *group) has(patterns []string) bool {
	for _, pattern := range patterns {
		found := false
		for _, b := range g.bindings {
			found = found || b.pattern == pattern
		}
		if !found {
			return false
		}
	}
	return true
}

// findGroup returns the group of a name, nil when there is none. An ephemeral one whose
// process is gone is removed.
func (s *store) findGroup(ctx context.Context, q Tx, sub transports.Subscription, owner string) (*group, error) {
	g := &group{name: sub.Name}
	var version int64
	var ephemeral int
	var dead bool
	var holder string
	found, err := s.one(ctx, q, []any{&g.id, &version, &ephemeral, &holder, &dead},
		`select id, version, ephemeral, owner, lease_ms <= {now} from {subscriptions} where name = ? {lock}`, sub.Name)
	switch {
	case err != nil || !found:
		return nil, err
	case ephemeral == 1 && dead:
		return nil, s.removeGroup(ctx, q, g.id)
	case ephemeral == 1 && holder != owner || ephemeral == 0 && owner != "":
		return nil, fmt.Errorf("subscription %q exists already, and an ephemeral one is not shared", sub.Name)
	}
	return g, s.readBindings(ctx, q, g, version)
}

// removeGroup deletes a group and all that waits in it.
func (s *store) removeGroup(ctx context.Context, q Tx, id int64) error {
	for _, table := range []string{"claims", "deliveries", "bindings"} {
		if _, err := s.exec(ctx, q, `delete from {`+table+`} where subscription_id = ?`, id); err != nil {
			return err
		}
	}
	_, err := s.exec(ctx, q, `delete from {subscriptions} where id = ?`, id)
	return err
}

// remove deletes a group by its name.
func (s *store) remove(ctx context.Context, name string) error {
	return s.inTx(ctx, func(tx Tx) error {
		if err := s.dialect.writeFirst(ctx, s, tx); err != nil {
			return err
		}
		var id int64
		found, err := s.one(ctx, tx, []any{&id}, `select id from {subscriptions} where name = ? {lock}`, name)
		if err != nil || !found {
			return err
		}
		return s.removeGroup(ctx, tx, id)
	})
}

// catchUp moves the frontier over all that is committed now.
func (s *store) catchUp(ctx context.Context) error {
	for {
		t, err := s.dialect.advance(ctx, s, true)
		switch {
		case err != nil && !dberr.Conflict(err):
			return err
		case err == nil && !t.busy && !t.more:
			return nil
		}
		if _, _, err := s.passedIDs(ctx); err != nil { // or it would wait for a row that is not there
			return err
		}
		if !wait(ctx, time.Millisecond) {
			return context.Cause(ctx)
		}
	}
}
