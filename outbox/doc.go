// Package outbox publishes events in the transaction that they belong to: they are sent if
// and only if it commits, also when the process dies in between.
//
//	ob, err := outbox.New(ctx, outbox.Config{DB: db, Source: "shop"})
//	err = ob.InTx(ctx, nil, func(ctx context.Context, tx *sql.Tx) error {
//		if _, err := tx.ExecContext(ctx, `insert into orders …`); err != nil {
//			return err
//		}
//		return ob.Publish(ctx, tx, events.OrderCreated{…})
//	})
//
// [Outbox.Publish] takes any transaction: *sql.Tx, that of sqlx, what GORM has in
// tx.Statement.ConnPool, and [Pgx] of a pgx.Tx. The events are rows in the log of package
// transports/sql, which has drivers for PostgreSQL, MySQL, MariaDB and SQLite.
//
// Who shares the database subscribes on [Outbox.Transport] with a bus, and needs nothing
// more. A [Relay] sends the events to another transport, in the same process or in one of
// its own:
//
//	relay, err := outbox.NewRelay(ob, outbox.RelayConfig{Name: "rabbitmq", To: broker})
//	err = relay.Run(ctx)
//
// # The relay
//
// A relay is an ordered subscription on the log, "outbox.<name>", with one active process
// for each destination:
//
//	standing by ──the lease is free──► active ──► claims a range, spreads it over lanes by key
//	     ▲                                │
//	     └──────the lease is lost─────────┘
//
//	a lane:  idle ──► batch sent ──► all confirmed, acknowledged ──► idle
//	                    ▲     │
//	                    │     ├─ destination away ──► paused: nothing is written or counted
//	                    │     └─ an event is refused ──► waiting, counted ──► parked
//	                    └──────────────┘
//
// A partition key has one lane, and a lane one unconfirmed batch. So the events of a key
// arrive in the order of the log, whatever fails; after a failure they are sent again from
// the first one that was not confirmed, and those that had arrived are there twice, with
// their ids. Events without a key have no order. A relay gives up what is not confirmed
// when its lease ends, before another one can begin with it. Its transactions last for
// milliseconds, and none is open while the broker is awaited.
//
// Only what the destination says of a single event is counted (a
// [transports.PublishError] that names it, [transports.ErrTooLarge], or an event that
// fails while others are sent). After [RelayConfig.Attempts] the event is parked: moved to
// the poison queue of the relay's subscription, from where [Relay.Redrive] brings it back.
// Its key goes on without it.
//
// Destinations have a relay each, and do not wait for each other. A destination begins
// with the oldest event that there is, so that nothing is missed that was committed before
// its relay ran for the first time; see [RelayConfig.Start].
//
// # Latency
//
// The relay of the process that publishes is woken by the commit ([Outbox.InTx], or the
// inbox), or finds the event within milliseconds; one of another process within
// [Config.PollInterval], or 10 ms while it is busy. On PostgreSQL that one hears of it
// within milliseconds too when the publishers have [Config.Notify] and it listens, with
// package pgnotify.
//
// # Limits
//
// A relay has up to 2 × Lanes × Batch events in memory. On MySQL, Publish is one statement,
// which the driver prepares first unless its DSN has interpolateParams=true.
package outbox
