package sqltest

import (
	"testing"
	"time"

	"github.com/gotidings/tidings/internal/testsql"
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
	<-time.After(300 * time.Millisecond) // the gates go by the database's clock: until publishers come to another one
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
