// Package inbox handles events so that their effects in a database happen once, however
// often the event arrives.
//
//	ib, err := inbox.New(ctx, inbox.Config{DB: db})
//	inbox.Subscribe(b, ib, "reserve-inventory", func(ctx context.Context, tx *sql.Tx, e events.OrderCreated) error {
//		if _, err := tx.ExecContext(ctx, `update stock …`); err != nil {
//			return err
//		}
//		return ob.Publish(ctx, tx, StockReserved{…})
//	})
//
// The mark that the event was handled, the business data and the events that the handler
// publishes through package outbox are committed or rolled back together. A duplicate is
// acknowledged without running the handler.
//
// For handlers with no work in the database, [Inbox] is a [middleware.DedupStore]:
//
//	bus.Config{Dedup: ib}
//
// There an event is claimed before the handler runs and marked after it: a crash in
// between repeats it when the lease of the claim has ended, by the database's clock.
//
// # Limits
//
// A copy that arrives while the event is being handled waits in the database, with a
// connection, until that transaction ends. On SQLite all writers wait for each other; open
// it with _txlock=immediate and a busy_timeout. What is older than [Config.Retention] is
// forgotten: a copy that arrives later is handled again.
package inbox
