// Package eventstore keeps every published event, for audit and for replay.
//
// # Where the events are
//
// The log of the SQL transport is a store already: a table of messages that are never
// updated. A service whose bus runs on it, or that has an outbox, gives that log to [New],
// and nothing is written twice:
//
//	store, err := eventstore.New(ctx, eventstore.Config{Log: transport, Index: true})
//
// A bus on another transport gets [Store.Record] as its last publish middleware, and the log a prefix of its own. Each
// batch is then stored, with one insert, before the broker gets it. Without a log the store
// is in memory, for tests.
//
// # Reading
//
// [Store.List] returns pages by type, subject, correlation id, time of storing and more, and
// [Store.Tree] the chain of causes of an event. What is asked for by type or time uses the
// log's own indexes. [Config.Index] adds one of ids, subjects, correlation and causation ids.
// It follows the log behind the publishers, in batches, so that publishing waits for nothing:
//
//	publish ──► messages ◄── index, seals (followers: durable subscriptions of the log)
//	                │
//	                ├──► List, Get, Tree
//	                └──► Replay ──► deliveries of ONE subscription
//
// # Replay
//
// [Store.Replay] sends a range to one subscription again, with the original ids and times and
// the id of the replay in the extension "replayid". Its range is fixed when it begins, and
// its position is stored with each batch, so that it can be stopped, or killed, and resumed.
//
// # Tampering
//
// With [Config.Seal] the digests of events are chained in batches, once they are committed, in
// the order in which the sealer finds them. [Store.Verify] names the events that were changed, removed
// or inserted. Keep its [Head] elsewhere, or set a [Config.SealKey]: a chain without either can be
// made anew by who may write to all tables.
//
// # Limits
//
// The followers are subscriptions named tidings.eventstore.…: retention waits for them. A service
// that gives them up removes them with RemoveSubscription. A replay is complete when its
// events are stored for the subscription, which handles them in its own time.
package eventstore
