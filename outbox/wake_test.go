package outbox

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWakerLooksOftenForASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int32
		w := waker{look: func() { looks.Add(1) }}
		time.Sleep(time.Hour)
		if n := looks.Load(); n != 0 {
			t.Fatalf("it looked %d times and nothing was expected", n)
		}
		w.expect()
		time.Sleep(10 * time.Millisecond)
		if n := looks.Load(); n < 2 {
			t.Errorf("it looked %d times in 10 ms", n)
		}
		time.Sleep(890 * time.Millisecond)
		before := looks.Load()
		w.expect() // once more: for another second
		time.Sleep(900 * time.Millisecond)
		if n := looks.Load() - before; n < 40 {
			t.Errorf("it looked %d times in the next second", n)
		}
		time.Sleep(time.Second)
		before = looks.Load()
		time.Sleep(time.Hour)
		if n := looks.Load(); n != before {
			t.Errorf("it goes on looking: %d times more", n-before)
		}
		w.expect()
		w.close()
		time.Sleep(time.Second)
		w.expect()
		time.Sleep(time.Second)
		if n := looks.Load(); n != before {
			t.Errorf("it looks after close: %d times", n-before)
		}
	})
}
