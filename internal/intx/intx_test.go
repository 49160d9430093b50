package intx_test

import (
	"database/sql"
	"testing"

	"go.uber.org/goleak"

	"github.com/gotidings/tidings/internal/intx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNotesAreOfOneTransaction(t *testing.T) {
	t.Parallel()
	tx, other, db := new(sql.Tx), new(sql.Tx), new(sql.DB)
	n := 0
	add := func() { n++ }
	if intx.AfterCommit(t.Context(), tx, "owner", add) {
		t.Error("noted without a transaction")
	}
	ctx, scope := intx.With(t.Context(), tx, db, "")
	if intx.AfterCommit(ctx, other, "owner", add) {
		t.Error("noted for another transaction")
	}
	for range 3 {
		if !intx.AfterCommit(ctx, tx, "owner", add) {
			t.Error("not noted")
		}
	}
	if !intx.AfterCommit(ctx, tx, "other owner", add) || n != 0 {
		t.Errorf("run %d times before the commit", n)
	}
	scope.Committed()
	scope.Committed()
	if n != 2 {
		t.Errorf("run %d times; want once for each of two owners", n)
	}
}

func TestTransactionOfADatabase(t *testing.T) {
	t.Parallel()
	tx, db, other := new(sql.Tx), new(sql.DB), new(sql.DB)
	ctx, _ := intx.With(t.Context(), tx, db, "a.db")
	inMemory, _ := intx.With(t.Context(), tx, db, "")
	for name, got := range map[string]*sql.Tx{
		"the same pool": intx.Tx(ctx, db, ""), "the same file": intx.Tx(ctx, other, "a.db"), "the same pool in memory": intx.Tx(inMemory, db, ""),
	} {
		if got != tx {
			t.Errorf("%s: not found", name)
		}
	}
	for name, got := range map[string]*sql.Tx{
		"no transaction": intx.Tx(t.Context(), db, "a.db"), "another pool": intx.Tx(ctx, other, ""),
		"another file": intx.Tx(ctx, other, "b.db"), "another one in memory": intx.Tx(inMemory, other, ""),
	} {
		if got != nil {
			t.Errorf("%s: found", name)
		}
	}
}
