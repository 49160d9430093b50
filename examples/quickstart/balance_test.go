package main

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestLedgerTimes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook(t)
		time.Sleep(time.Hour) // before the first publish
		for i := range 100 {
			b.publish(fmt.Sprint(i), "y")
		}
		for i := range 100 {
			time.Sleep(time.Second)
			b.handle("c", fmt.Sprint(i))
		}
		b.publish("copied", "x")
		time.Sleep(3 * time.Second)
		b.publish("copied", "x") // the time counts from the first copy
		time.Sleep(4 * time.Second)
		b.handle("a", "copied")
		if p50 := b.rows()[0].p50; p50 != 7*time.Second {
			t.Errorf("p50 %v, want 7 s", p50)
		}
		r := b.rows()[2]
		if r.p50 != 50*time.Second || r.p99 != 99*time.Second || r.perSecond != 1 {
			t.Errorf("p50 %v, p99 %v, %v per second; want 50 s, 99 s, 1", r.p50, r.p99, r.perSecond)
		}
	})
}

func TestPercentile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		values []time.Duration
		p      int
		want   time.Duration
	}{
		{nil, 50, 0},
		{[]time.Duration{7}, 50, 7},
		{[]time.Duration{7}, 99, 7},
		{[]time.Duration{1, 2}, 50, 1},
		{[]time.Duration{1, 2, 3}, 50, 2},
		{[]time.Duration{1, 2, 3}, 99, 3},
	} {
		if got := percentile(tt.values, tt.p); got != tt.want {
			t.Errorf("percentile(%v, %d) = %v, want %v", tt.values, tt.p, got, tt.want)
		}
	}
}
