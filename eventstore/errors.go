package eventstore

import "errors"

var (
	// ErrNotFound is returned for an event that the store does not have, or has no more.
	ErrNotFound = errors.New("eventstore: no such event")

	// ErrInvalid is wrapped by errors of a query or replay that can't be.
	ErrInvalid = errors.New("eventstore: invalid")

	// ErrEmptyRange is returned by [Store.Replay] when the store has no event for it.
	ErrEmptyRange = errors.New("eventstore: there is no event in the range")

	// ErrExpired is wrapped by the error of [Store.Replay] for a range that begins before
	// the oldest event that retention has left.
	ErrExpired = errors.New("eventstore: the range begins before the oldest event that is kept")

	// ErrReplayTaken is returned by [Store.Replay] when another process goes on with the
	// replay. It has lost nothing.
	ErrReplayTaken = errors.New("eventstore: another process goes on with this replay")

	// ErrNoReplay is returned by [Store.Resume] for an id that no replay has.
	ErrNoReplay = errors.New("eventstore: no such replay")

	// ErrNoRequeuer is returned by [Store.Replay] for a transport that can't send to one
	// subscription.
	ErrNoRequeuer = errors.New("eventstore: the transport can't send to a single subscription")

	// ErrNotSealed is returned by [Store.Verify] for a store without [Config.Seal].
	ErrNotSealed = errors.New("eventstore: the store has no seals, see Config.Seal")
)
