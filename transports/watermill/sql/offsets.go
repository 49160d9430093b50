package sql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	wmsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
)

// offsets returns watermill-sql's default adapter.
func offsets(d Dialect) wmsql.OffsetsAdapter {
	if d == Postgres {
		return wmsql.DefaultPostgreSQLOffsetsAdapter{}
	}
	return wmsql.DefaultMySQLOffsetsAdapter{}
}

// startsNow are the statements that put a new group at the end of a topic, by watermill-sql's
// default tables. The first one finds a group that is there already, without waiting for
// a replica that has it locked.
type startsNow struct{ find, insert string }

func startNow(d Dialect, topic string) startsNow {
	if d == Postgres {
		table := wmsql.DefaultPostgreSQLOffsetsAdapter{}.MessagesOffsetsTable(topic)
		return startsNow{
			find: `SELECT 1 FROM ` + table + ` WHERE consumer_group = $1`,
			// Messages are ordered by the ids of their transactions, and one that is still open
			// may have a lower id than others that are over. So the group gets what was
			// published since the oldest of those began: it misses nothing that is committed
			// from now on.
			insert: `INSERT INTO ` + table + ` (consumer_group, offset_acked, last_processed_transaction_id)
				SELECT $1, 9223372036854775807, (pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1)::text::xid8
				ON CONFLICT DO NOTHING`,
		}
	}
	table := wmsql.DefaultMySQLOffsetsAdapter{}.MessagesOffsetsTable(topic)
	return startsNow{
		find: "SELECT 1 FROM " + table + " WHERE consumer_group = ?",
		// The lock waits for who is publishing, whose message may have a lower number.
		insert: "INSERT IGNORE INTO " + table + " (consumer_group, offset_acked, offset_consumed) " +
			"SELECT ?, COALESCE(MAX(`offset`), 0), COALESCE(MAX(`offset`), 0) FROM " + wmsql.DefaultMySQLSchema{}.MessagesTable(topic) + " LOCK IN SHARE MODE",
	}
}

// declare makes the group exist.
func (s startsNow) declare(ctx context.Context, db *sql.DB, group string) error {
	var found int
	err := db.QueryRowContext(ctx, s.find, group).Scan(&found)
	if errors.Is(err, sql.ErrNoRows) {
		_, err = db.ExecContext(ctx, s.insert, group)
	}
	if err != nil {
		return fmt.Errorf("consumer group %q: %w", group, err)
	}
	return nil
}
