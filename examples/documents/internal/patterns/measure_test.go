package patterns

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Job is what is sent: 200 bytes of JSON.
type Job struct {
	N    int64  `json:"n"`
	Text string `json:"text"`
}

var text = strings.Repeat("x", 180)

// measure runs op, with another number each time, one at a time and then 64.
func measure(b *testing.B, op func(ctx context.Context, n int64) error) {
	b.Helper()
	var numbers atomic.Int64
	for _, width := range []int{1, 64} {
		b.Run(fmt.Sprint("at-a-time=", width), func(b *testing.B) {
			ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
			defer cancel()
			took := make([][]time.Duration, width)
			var left atomic.Int64
			left.Store(int64(b.N))
			var all sync.WaitGroup
			b.ResetTimer()
			for w := range width {
				all.Go(func() {
					for left.Add(-1) >= 0 {
						began := time.Now()
						if err := op(ctx, numbers.Add(1)); err != nil {
							b.Error(err)
							return
						}
						took[w] = append(took[w], time.Since(began))
					}
				})
			}
			all.Wait()
			report(b, slices.Concat(took...))
		})
	}
}

func report(b *testing.B, took []time.Duration) {
	b.Helper()
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	percentile := func(p int) float64 { return float64(took[min(len(took)*p/100, len(took)-1)].Microseconds()) }
	b.ReportMetric(percentile(50), "p50-µs")
	b.ReportMetric(percentile(99), "p99-µs")
	b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "per-s")
	b.ReportMetric(0, "ns/op") // says the same
}

// arrivals are jobs that somebody waits for.
type arrivals struct{ waiting sync.Map }

// sent calls send and waits until the job has arrived.
func (a *arrivals) sent(ctx context.Context, n int64, send func(context.Context, Job) error) error {
	arrived := make(chan struct{})
	a.waiting.Store(n, arrived)
	if err := send(ctx, Job{n, text}); err != nil {
		return err
	}
	select {
	case <-arrived:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("job %d has not arrived: %w", n, ctx.Err())
	}
}

// arrived ends the wait for a job. A copy is passed over.
func (a *arrivals) arrived(n int64) {
	if c, ok := a.waiting.LoadAndDelete(n); ok {
		close(c.(chan struct{}))
	}
}
