package aftercommit_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/gotidings/tidings/internal/aftercommit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestListIsOfOneTransaction(t *testing.T) {
	t.Parallel()
	tx, other := new(int), new(int)
	n := 0
	add := func() { n++ }
	if aftercommit.Add(t.Context(), tx, "owner", add) {
		t.Error("added without a list")
	}
	ctx, list := aftercommit.With(t.Context(), tx)
	if aftercommit.Add(ctx, other, "owner", add) {
		t.Error("added for another transaction")
	}
	for range 3 {
		if !aftercommit.Add(ctx, tx, "owner", add) {
			t.Error("not added")
		}
	}
	if !aftercommit.Add(ctx, tx, "other owner", add) || n != 0 {
		t.Errorf("run %d times before the commit", n)
	}
	list.Run()
	list.Run()
	if n != 2 {
		t.Errorf("run %d times; want once for each of two owners", n)
	}
}
