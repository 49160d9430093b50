package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gotidings/tidings/internal/testserver"
)

func TestNames(t *testing.T) {
	t.Parallel()
	names := make(map[string]bool)
	for _, c := range allCases("") {
		if names[c.name()] {
			t.Errorf("two cases are called %s", c.name())
		}
		names[c.name()] = true
	}
}

func TestMemoryCases(t *testing.T) {
	t.Parallel()
	testCases(t, memoryCases())
}

func TestTelemetryCases(t *testing.T) {
	t.Parallel()
	testCases(t, telemetryCases())
}

func TestBrokerCases(t *testing.T) {
	t.Parallel()
	testCases(t, brokerCases(testserver.RabbitMQ(t)))
}

// testCases wants every case to work, and a round of it to be measured as something.
func testCases(t *testing.T, cases []benchCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name(), func(t *testing.T) {
			t.Parallel()
			s, err := measure(t.Context(), c, 200)
			if errors.Is(err, errNoServer) && os.Getenv("REQUIRE_SERVICES") != "1" {
				t.Skipf("SKIPPED: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			if s.Events != 200 || s.Elapsed <= 0 || s.Allocs == 0 || s.Bytes == 0 {
				t.Errorf("measured %+v", s)
			}
		})
	}
}

func TestInRoundsInterleaves(t *testing.T) {
	t.Parallel()
	cases := []benchCase{
		{group: "g", variant: "x=1", peer: "a"},
		{group: "g", variant: "x=1", peer: "b"},
		{group: "g", variant: "x=1", peer: "c"},
		{group: "g", variant: "x=2", peer: "a"},
	}
	var visited []string
	results, err := inRounds(cases, 3, func(c benchCase, round int) (sample, error) {
		visited = append(visited, strings.TrimPrefix(c.name(), "g/x="))
		return sample{Events: round}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(visited, " "), "1/a 1/b 1/c 2/a 1/c 1/b 1/a 2/a 1/b 1/c 1/a 2/a"; got != want {
		t.Errorf("order\n%s, want\n%s", got, want)
	}
	for i, r := range results {
		if r.name() != cases[i].name() || !slices.Equal(r.samples, []sample{{Events: 0}, {Events: 1}, {Events: 2}}) {
			t.Errorf("result %d is of %s: %+v", i, r.name(), r.samples)
		}
	}
}

func TestInRoundsStopsAtAFault(t *testing.T) {
	t.Parallel()
	fault := errors.New("lost")
	measured := 0
	_, err := inRounds(make([]benchCase, 2), 5, func(benchCase, int) (sample, error) {
		measured++
		return sample{}, fault
	})
	if !errors.Is(err, fault) || measured != 1 {
		t.Errorf("error %v after %d measurements", err, measured)
	}
}

// Over the rounds every case comes first as often as any other.
func TestOrderIsFair(t *testing.T) {
	t.Parallel()
	const n = 4
	first := make(map[int]int)
	for round := range 2 * n {
		o := order(n, round)
		first[o[0]]++
		if sorted := slices.Sorted(slices.Values(o)); !slices.Equal(sorted, []int{0, 1, 2, 3}) {
			t.Errorf("round %d visits %v", round, o)
		}
	}
	for i := range n {
		if first[i] != 2 {
			t.Errorf("in %d rounds case %d comes first %d times", 2*n, i, first[i])
		}
	}
}

func TestLedger(t *testing.T) {
	t.Parallel()
	altered := newPurchase(1)
	altered.City = "Paris"
	for name, test := range map[string]struct {
		handle []purchase
		fault  string // of verify; empty for none
	}{
		"every event once": {[]purchase{newPurchase(2), newPurchase(0), newPurchase(1)}, ""},
		"lost":             {[]purchase{newPurchase(2), newPurchase(0)}, "of 3 events, 1 were lost and 0 were handled more than once"},
		"doubled":          {[]purchase{newPurchase(2), newPurchase(0), newPurchase(0), newPurchase(1)}, "of 3 events, 0 were lost and 1 were handled more than once"},
		"altered":          {[]purchase{newPurchase(2), newPurchase(0), altered}, "an event was decoded as {Seq:1 "},
		"unknown":          {[]purchase{newPurchase(2), newPurchase(0), newPurchase(3)}, "an event was decoded as {Seq:3 "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLedger(3)
			for _, e := range test.handle {
				l.handled(e)
			}
			err := l.verify()
			if (err == nil) != (test.fault == "") || err != nil && !strings.HasPrefix(err.Error(), test.fault) {
				t.Errorf("verify: %v, want %q", err, test.fault)
			}
		})
	}
}

func TestLedgerWait(t *testing.T) {
	t.Parallel()
	l := newLedger(1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("empty ledger, context ended: %v", err)
	}
	l.handled(newPurchase(0))
	if err := l.wait(t.Context()); err != nil {
		t.Errorf("full ledger: %v", err)
	}
	l = newLedger(1)
	l.handled(purchase{})
	if err := l.wait(t.Context()); err == nil {
		t.Error("an altered event: no error")
	}
}

func TestLedgerPublishesEachOnce(t *testing.T) {
	t.Parallel()
	for _, publishers := range []int{1, 3, 8} {
		l := newLedger(10)
		err := l.publish(t.Context(), publishers, func(_ context.Context, e purchase) error {
			l.handled(e)
			return nil
		})
		if err = errors.Join(err, l.verify()); err != nil {
			t.Errorf("%d publishers: %v", publishers, err)
		}
	}
	for _, p := range []publishing{{1, 1}, {1, 4}, {3, 3}, {16, 2}} {
		l := newLedger(10)
		err := l.publishBatches(t.Context(), p, func(_ context.Context, batch []purchase) error {
			if len(batch) < 1 || len(batch) > p.batch {
				t.Errorf("%s: a batch of %d", p, len(batch))
			}
			return nil
		})
		if err = errors.Join(err, l.verify()); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	refused := errors.New("refused")
	err := newLedger(2).publish(t.Context(), 1, func(context.Context, purchase) error { return refused })
	if !errors.Is(err, refused) {
		t.Errorf("error %v", err)
	}
	l := newLedger(2)
	err = l.publishBatches(t.Context(), publishing{1, 1}, func(context.Context, []purchase) error { return refused })
	if !errors.Is(err, refused) || l.left.Load() != 2 {
		t.Errorf("error %v, %d left", err, l.left.Load())
	}
}

// A case that loses events, or handles them more than once, is a failure and no
// figure.
func TestMeasureFailsOnLoss(t *testing.T) {
	t.Parallel()
	rigged := func(times int) benchCase {
		return benchCase{prepare: func(_ context.Context, l *ledger) (rig, error) {
			return rig{
				run: func(context.Context) error {
					for range times {
						l.handled(newPurchase(0))
					}
					return nil
				},
				close: func() error { return nil },
			}, nil
		}}
	}
	if _, err := measure(t.Context(), rigged(1), 1); err != nil {
		t.Errorf("handled once: %v", err)
	}
	if _, err := measure(t.Context(), rigged(2), 1); err == nil {
		t.Error("handled twice: no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := measure(ctx, rigged(0), 1); err == nil {
		t.Error("lost: no error")
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ most, asked, want int }{{0, 100, 100}, {10, 100, 10}, {10, 5, 5}} {
		if got := (benchCase{most: test.most}).events(test.asked); got != test.want {
			t.Errorf("at most %d of %d events: %d, want %d", test.most, test.asked, got, test.want)
		}
	}
}
