package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/gotidings/tidings/internal/dberr"
	"github.com/gotidings/tidings/middleware"
	tsql "github.com/gotidings/tidings/transports/sql"
)

var _ middleware.DedupStore = (*Inbox)(nil)

// Lease returns [Config.Lease].
func (ib *Inbox) Lease() time.Duration { return ib.cfg.Lease }

// Retention returns [Config.Retention].
func (ib *Inbox) Retention() time.Duration { return ib.cfg.Retention }

// Claim takes an event unless it is taken or done. Leases are by the database's clock.
func (ib *Inbox) Claim(ctx context.Context, key middleware.DedupKey) (middleware.Claim, error) {
	id := dedupID(key)
	args := []any{text(key.Subscription), text(key.Event.Source), text(key.Event.ID)}
	var claim middleware.Claim
	err := dberr.Retry(ctx, dberr.Patience, func() (err error) {
		if ib.cfg.Dialect == tsql.MySQL {
			claim, err = ib.claimLocked(ctx, id, args)
		} else {
			claim, err = ib.claim(ctx, id, args)
		}
		return err
	})
	if err != nil {
		return middleware.Claim{}, fmt.Errorf("inbox: claim: %w", err)
	}
	return claim, nil
}

func (ib *Inbox) claim(ctx context.Context, id []byte, names []any) (middleware.Claim, error) {
	for {
		var token int64
		err := ib.cfg.DB.QueryRowContext(ctx, ib.sql.claim, append([]any{id, ib.cfg.Lease.Milliseconds()}, names...)...).Scan(&token)
		switch {
		case err == nil:
			return middleware.Claim{State: middleware.Claimed, Token: uint64(token)}, nil //nolint:gosec // it began as a time
		case !errors.Is(err, sql.ErrNoRows):
			return middleware.Claim{}, err
		}
		claim, live, _, err := ib.look(ctx, ib.cfg.DB, id)
		if err != nil || live {
			return claim, err
		}
		// It has ended between the two statements: once more.
	}
}

// look reads a row, and reports whether it counts. next is the token of a claim that takes
// it over.
func (ib *Inbox) look(ctx context.Context, q execer, id []byte) (claim middleware.Claim, live bool, next int64, err error) {
	var state, counts int
	var token, now int64
	err = q.QueryRowContext(ctx, ib.sql.state, id).Scan(&state, &token, &counts, &now)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return claim, false, 0, nil
	case err != nil:
		return claim, false, 0, err
	case state == stateDone:
		claim.State = middleware.AlreadyDone
	default:
		claim.State = middleware.ClaimBusy
	}
	return claim, counts == 1, max(token+1, now), nil
}

// claimLocked is claim for MySQL, which can't return what it has written.
func (ib *Inbox) claimLocked(ctx context.Context, id []byte, names []any) (claim middleware.Claim, err error) {
	tx, err := ib.cfg.DB.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return claim, err
	}
	defer func() { _ = tx.Rollback() }() // nothing to do after the commit
	if _, err := tx.ExecContext(ctx, ib.sql.seed, append([]any{id}, names...)...); err != nil {
		return claim, err
	}
	claim, live, token, err := ib.look(ctx, tx, id)
	if err != nil || live {
		return claim, err
	}
	n, err := exec(ctx, tx, ib.sql.take, token, ib.cfg.Lease.Milliseconds(), id)
	if err == nil && n == 0 {
		err = errors.New("the row is gone")
	}
	if err != nil {
		return claim, err
	}
	return middleware.Claim{State: middleware.Claimed, Token: uint64(token)}, tx.Commit() //nolint:gosec // it began as a time
}

// Renew extends a claim. The error is [middleware.ErrClaimLost] when somebody else has
// taken it. A claim that has run out and that nobody has taken is the caller's again.
func (ib *Inbox) Renew(ctx context.Context, key middleware.DedupKey, token uint64) error {
	return ib.own(ctx, ib.sql.renew, ib.cfg.Lease.Milliseconds(), dedupID(key), int64(token)) //nolint:gosec // it came from Claim
}

// Complete marks a claimed event as done. The error is [middleware.ErrClaimLost] when
// somebody else has taken it.
func (ib *Inbox) Complete(ctx context.Context, key middleware.DedupKey, token uint64) error {
	return ib.own(ctx, ib.sql.done, ib.cfg.Retention.Milliseconds(), dedupID(key), int64(token)) //nolint:gosec // it came from Claim
}

// own runs a statement that changes the row of a claim if it is still the caller's.
func (ib *Inbox) own(ctx context.Context, query string, args ...any) error {
	n, err := ib.exec(ctx, query, args...)
	switch {
	case err != nil:
		return fmt.Errorf("inbox: %w", err)
	case n == 0:
		return middleware.ErrClaimLost
	}
	return nil
}

// Release gives a claim up. One that is not the caller's any more is left alone.
func (ib *Inbox) Release(ctx context.Context, key middleware.DedupKey, token uint64) error {
	_, err := ib.exec(ctx, ib.sql.release, dedupID(key), int64(token)) //nolint:gosec // it came from Claim
	if err != nil {
		return fmt.Errorf("inbox: release: %w", err)
	}
	return nil
}

func dedupID(key middleware.DedupKey) []byte {
	return keyOf(kindMiddleware, key.Subscription, key.Event.Source, key.Event.ID, key.Replay)
}
