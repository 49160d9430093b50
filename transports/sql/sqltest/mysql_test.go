package sqltest

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// Publishers move on to another gate when a gap begins, so that it is not theirs to end it:
// there may always be one of them.
func TestGapEndsAlthoughPublishersStayOpen(t *testing.T) {
	t.Parallel()
	db, cfg := testsql.MariaDB(t)
	b := backend{db, cfg}
	tr := testsql.NewTransport(t, db, cfg)
	ch := subscribe(t.Context(), t, tr, "s", 10, "a")
	first, rolledBack := begin(t, db), begin(t, db)
	publishTx(t, tr, first, "a", "first")
	publishTx(t, tr, rolledBack, "a", "never")
	if err := rolledBack.Rollback(); err != nil {
		t.Fatal(err)
	}
	publish(t, tr, "a", "passes both")
	ackInOrder(t, ch, "passes both")
	<-time.After(300 * time.Millisecond) // until publishers come to another gate
	second := begin(t, db)               // before the first ends
	publishTx(t, tr, second, "a", "second")
	commit(t, first)
	ackInOrder(t, ch, "first")
	publish(t, tr, "a", "passes second")
	ackInOrder(t, ch, "passes second")
	eventually(t, db, 1, "select count(*) from "+b.table("gaps")) // that of the second alone
	commit(t, second)
	ackInOrder(t, ch, "second")
	eventually(t, db, 0, "select count(*) from "+b.table("gaps"))
}

// branch is how a transaction manager makes a transaction of its own on a connection.
type branch struct{ *sql.Conn }

func (b branch) Commit() error {
	_, err := b.ExecContext(context.Background(), "commit")
	return err
}

func (b branch) Rollback() error {
	_, err := b.ExecContext(context.Background(), "rollback")
	return err
}

// A branch of a distributed transaction loses its lock on the gate when it is prepared: what
// it commits later would be in the log and never be delivered. A local transaction of the same
// kind is not affected by the question.
func TestPublishInABranchIsRefused(t *testing.T) {
	t.Parallel()
	db, cfg := testsql.MariaDB(t)
	tr := testsql.NewTransport(t, db, cfg)
	ch := subscribe(t.Context(), t, tr, "s", 10, "a")
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	tx := branch{conn}
	xid := "'" + testsql.Unique() + "'"
	execute(t, tx, "xa start "+xid)
	if err := tr.PublishTx(t.Context(), tx, outgoing("a", "lost")...); !errors.Is(err, tsql.ErrXA) {
		t.Errorf("publish in a branch: %v; want ErrXA", err)
	}
	execute(t, tx, "xa end "+xid)
	execute(t, tx, "xa prepare "+xid)
	execute(t, tx, "xa commit "+xid)

	for end, id := range map[string]string{"commit": "committed", "rollback": "never"} {
		execute(t, tx, "start transaction")
		if err := tr.PublishTx(t.Context(), tx, outgoing("a", id)...); err != nil {
			t.Fatal(err)
		}
		execute(t, tx, end)
	}
	ackInOrder(t, ch, "committed")
	wantQuiet(t, ch)
}

// A transaction of the driver is known not to be a branch, and is not asked.
func TestLocalTransactionIsNotAsked(t *testing.T) {
	t.Parallel()
	db, cfg := testsql.MariaDB(t)
	tr := testsql.NewTransport(t, db, cfg)
	tx := begin(t, db)
	publishTx(t, tr, tx, "a", "1")
	var name string
	var asked int
	if err := tx.QueryRowContext(t.Context(), "show session status like 'Com_xa_end'").Scan(&name, &asked); err != nil {
		t.Fatal(err)
	}
	if asked != 0 {
		t.Errorf("asked %d times", asked)
	}
	// And it is right not to ask.
	if _, err := tx.ExecContext(t.Context(), "xa start 'x'"); err == nil {
		t.Error("a branch begins in a local transaction")
	}
	commit(t, tx)
}

// A payload that is twice as long in the text of a statement is published all the same.
func TestPayloadOfQuotes(t *testing.T) {
	t.Parallel()
	db, cfg := testsql.MariaDB(t)
	b := backend{db, cfg}
	tr, err := transports.Open(t.Context(), b.url(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tr.Close() }()
	packet := scalar(t, db, "select @@max_allowed_packet")
	// More than a packet with a backslash before each, where packets are not larger than twice a message.
	payload := bytes.Repeat([]byte("'"), int(min(packet*2/3, 16<<20)))
	msg := newMessage("1")
	msg.Payload = payload
	if err := tr.Publish("a", msg); err != nil {
		t.Fatal(err)
	}
	if n := scalar(t, db, "select octet_length(payload) from "+b.table("messages")); n != int64(len(payload)) {
		t.Errorf("%d bytes are stored; want %d", n, len(payload))
	}
}
