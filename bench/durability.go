package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// durabilityOf says what the peers of one work have in common: when something counts as
// stored.
func durabilityOf(ctx context.Context) (_ string, err error) {
	d := sqlDatabases[0]
	db, err := sql.Open(d.driver, d.url())
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var fsync, commit string
	if err := db.QueryRowContext(ctx, "select current_setting('fsync'), current_setting('synchronous_commit')").Scan(&fsync, &commit); err != nil {
		return "", fmt.Errorf("%w: %s, see $%s: %w", errNoServer, d.name, d.env, err)
	}
	return "Durability, of both sides. PostgreSQL: fsync " + fsync + ", synchronous_commit " + commit +
		". RabbitMQ: durable queues, persistent messages, every publish confirmed; ours and the limit on a quorum queue, " +
		"watermill-amqp on its default, a classic one. In memory: none.", nil
}
