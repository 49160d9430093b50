package queue_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/gotidings/tidings/examples/documents/internal/queue"
	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
	_ "github.com/gotidings/tidings/transports/memory"
	_ "github.com/gotidings/tidings/transports/rabbitmq"
	_ "github.com/gotidings/tidings/transports/sql"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline is how long a test waits for what comes soon.
const deadline = 2 * time.Minute

type job struct {
	N int `json:"n"`
}

// world is a queue on a transport, of a test's own.
type world struct {
	t         *testing.T
	ctx       context.Context //nolint:containedctx // the test's, with a deadline
	transport transports.Transport
	name      string
}

// onEach runs a test on every transport.
func onEach(t *testing.T, test func(w *world)) {
	t.Helper()
	for name, address := range map[string]func(t *testing.T) string{
		"memory": func(*testing.T) string { return "memory://" },
		"sqlite": func(t *testing.T) string {
			t.Helper()
			return "sqlite:" + filepath.ToSlash(filepath.Join(t.TempDir(), "queue.db"))
		},
		"rabbitmq": func(t *testing.T) string { t.Helper(); return testserver.RabbitMQ(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			transport, err := transports.Open(context.WithoutCancel(ctx), address(t))
			if err != nil {
				t.Fatal(err)
			}
			w := &world{t: t, ctx: ctx, transport: transport, name: "queue-" + strings.ToLower(rand.Text())}
			defer func() {
				remover, ok := transport.(transports.SubscriptionRemover)
				if !ok {
					t.Fatal("the transport can't remove the queue")
				}
				if err := errors.Join(remover.RemoveSubscription(context.WithoutCancel(ctx), w.name), transport.Close()); err != nil {
					t.Error(err)
				}
			}()
			test(w)
		})
	}
}

// start makes a processor and starts it. With stop it is stopped.
func (w *world) start(handle func(context.Context, queue.Delivery[job]) queue.Settlement, change ...func(*queue.Config[job])) (p *queue.Processor[job], stop func()) {
	w.t.Helper()
	cfg := queue.Config[job]{Transport: w.transport, Name: w.name, Topics: []string{w.name}, Handle: handle, RetryDelay: time.Millisecond}
	for _, f := range change {
		f(&cfg)
	}
	p, err := queue.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := p.Start(w.ctx); err != nil {
		w.t.Fatal(err)
	}
	return p, func() {
		w.t.Helper()
		if err := errors.Join(p.Stop(w.ctx), p.Wait()); err != nil {
			w.t.Error(err)
		}
	}
}

func (w *world) send(bodies ...string) {
	w.t.Helper()
	for i, body := range bodies {
		msg := message.NewMessageWithContext(w.ctx, fmt.Sprint("job-", i), []byte(body))
		msg.Metadata = message.Metadata{"ce_type": w.name, "ce_source": "test", "ce_specversion": "1.0", "ce_datacontenttype": "application/json"}
		if err := w.transport.Publish(w.name, msg); err != nil {
			w.t.Fatal(err)
		}
	}
}

func jobs(n int) []string {
	bodies := make([]string, n)
	for i := range bodies {
		bodies[i] = fmt.Sprintf(`{"n":%d}`, i)
	}
	return bodies
}

// receive waits for something that comes soon.
func receive[T any](w *world, c <-chan T) (v T) {
	w.t.Helper()
	select {
	case v = <-c:
	case <-w.ctx.Done():
		w.t.Fatal("waited for too long")
	}
	return v
}

// deadLetters waits until so many messages are dead-lettered.
func deadLetters(w *world, p *queue.Processor[job], given <-chan queue.DeadLettered, n int) (all []queue.DeadLettered) {
	w.t.Helper()
	var told []string
	for range n {
		d := receive(w, given)
		told = append(told, fmt.Sprint(d.Message.UUID, d.Reason, d.Description, d.Deliveries))
	}
	var listed []string
	for d, err := range p.DeadLetters(w.ctx) {
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, d)
		listed = append(listed, fmt.Sprint(d.Message.UUID, d.Reason, d.Description, d.Deliveries))
	}
	slices.Sort(told)
	slices.Sort(listed)
	if !slices.Equal(told, listed) {
		w.t.Errorf("told %q, listed %q", told, listed)
	}
	return all
}

// keep has dead letters told to a channel.
func keep() (func(*queue.Config[job]), <-chan queue.DeadLettered) {
	given := make(chan queue.DeadLettered, 100)
	return func(c *queue.Config[job]) { c.OnDeadLetter = func(d queue.DeadLettered) { given <- d } }, given
}

// Four at a time, and never more.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	onEach(t, func(w *world) {
		began, release, ended := make(chan int, 20), make(chan struct{}), make(chan int, 20)
		_, stop := w.start(func(_ context.Context, d queue.Delivery[job]) queue.Settlement {
			began <- d.Body.N
			<-release
			ended <- d.Body.N
			return queue.Complete()
		})
		w.send(jobs(12)...)
		for range 4 {
			receive(w, began)
		}
		for range 8 { // one ends, one begins
			if len(began) != 0 {
				w.t.Fatalf("%d are handled at a time, want 4", 4+len(began))
			}
			release <- struct{}{}
			receive(w, ended)
			receive(w, began)
		}
		close(release)
		for range 4 {
			receive(w, ended)
		}
		stop()
	})
}

func TestAbandoned(t *testing.T) {
	t.Parallel()
	onEach(t, func(w *world) {
		type call struct {
			count int
			last  bool
		}
		calls, done := make(chan call, 20), make(chan struct{}, 20)
		keeps, given := keep()
		p, stop := w.start(func(_ context.Context, d queue.Delivery[job]) queue.Settlement {
			calls <- call{d.Count, d.Last}
			switch {
			case d.Body.N == 1:
				return queue.Abandon(errors.New("never: it is broken"))
			case d.Count == 1:
				panic("at first")
			case d.Count == 2:
				return queue.AbandonFor(time.Millisecond, nil)
			}
			done <- struct{}{}
			return queue.Complete()
		}, keeps)
		w.send(jobs(1)...)
		receive(w, done)
		w.send("", `{"n":1}`) // the first one is undecodable
		all := deadLetters(w, p, given, 2)
		stop()
		close(calls)
		var got []call
		for c := range calls {
			got = append(got, c)
		}
		want := []call{{1, false}, {2, false}, {3, true}}
		if want = slices.Concat(want, want); !slices.Equal(got, want) {
			w.t.Errorf("calls are %v, want %v", got, want)
		}
		for _, d := range all {
			if d.Message.UUID == "job-1" && (d.Reason != queue.ReasonMaxDeliveries || d.Description != "never: it is broken" || d.Deliveries != 3) {
				w.t.Errorf("dead-lettered with %q, %q after %d deliveries", d.Reason, d.Description, d.Deliveries)
			}
		}
	})
}

// What was not tried is delivered for the first time still, however often that was so.
func TestReturned(t *testing.T) {
	t.Parallel()
	onEach(t, func(w *world) {
		const calls = 5 // more than there are deliveries
		counts := make(chan int, calls)
		var called atomic.Int32
		_, stop := w.start(func(_ context.Context, d queue.Delivery[job]) queue.Settlement {
			counts <- d.Count
			if called.Add(1) < calls {
				return queue.Return(errors.New("the database is away"))
			}
			return queue.Complete()
		}, func(c *queue.Config[job]) { c.RetryDelay = time.Millisecond })
		w.send(jobs(1)...)
		for range calls {
			if n := receive(w, counts); n != 1 {
				w.t.Errorf("delivery %d, want the first", n)
			}
		}
		stop()
	})
}

func TestDeadLettered(t *testing.T) {
	t.Parallel()
	onEach(t, func(w *world) {
		called := make(chan int, 20)
		keeps, given := keep()
		p, stop := w.start(func(_ context.Context, d queue.Delivery[job]) queue.Settlement {
			called <- d.Count
			return queue.DeadLetter("unreadable", "page 3: it is blank")
		}, keeps)
		w.send(`{"n":0}`, `{"n":`)
		for _, d := range deadLetters(w, p, given, 2) {
			want := queue.DeadLettered{Message: d.Message, Reason: "unreadable", Description: "page 3: it is blank", Deliveries: 1}
			if d.Message.UUID == "job-1" {
				want.Reason, want.Description = queue.ReasonUndecodable, "unexpected end of JSON input"
			}
			want.Handle = d.Handle // the transport's own
			if d != want || d.Handle == "" {
				w.t.Errorf("dead-lettered with %+v, want %+v", d, want)
			}
		}
		if len(called) != 1 || <-called != 1 {
			w.t.Errorf("the handler was called %d times more than once", len(called))
		}
		var first transports.PoisonHandle
		for d, err := range p.DeadLetters(w.ctx) {
			if err != nil {
				w.t.Fatal(err)
			}
			if d.Reason == "unreadable" {
				first = d.Handle
			}
		}
		if n, err := p.Redrive(w.ctx, first); n != 1 || err != nil {
			w.t.Fatalf("redriven: %d, %v", n, err)
		}
		if count := receive(w, called); count != 1 {
			w.t.Errorf("after a redrive the count is %d, want 1", count)
		}
		receive(w, given)
		stop()
	})
}

// watched tells with which context it was subscribed to.
type watched struct {
	queue.Transport
	intake chan<- context.Context
}

func (t watched) Subscribe(ctx context.Context, s transports.Subscription) (<-chan *message.Message, error) {
	t.intake <- ctx
	return t.Transport.Subscribe(ctx, s)
}

// What runs is finished, and the rest is the next processor's, uncounted.
func TestStop(t *testing.T) {
	t.Parallel()
	onEach(t, func(w *world) {
		const n = 20
		var mu sync.Mutex
		handled := make(map[int]int)
		done := make(chan struct{}, n)
		began, release := make(chan struct{}, n), make(chan struct{})
		handle := func(ctx context.Context, d queue.Delivery[job]) queue.Settlement {
			began <- struct{}{}
			<-release
			if ctx.Err() != nil || d.Count != 1 {
				w.t.Errorf("job %d: context %v, delivery %d", d.Body.N, ctx.Err(), d.Count)
			}
			mu.Lock()
			handled[d.Body.N]++
			mu.Unlock()
			done <- struct{}{}
			return queue.Complete()
		}
		capable, _ := w.transport.(queue.Transport)
		intake := make(chan context.Context, 1)
		p, _ := w.start(handle, func(c *queue.Config[job]) { c.Transport = watched{capable, intake} })
		w.send(jobs(n)...)
		for range 4 {
			receive(w, began)
		}
		stopped := make(chan error, 1)
		go func() { stopped <- p.Stop(w.ctx) }()
		receive(w, (<-intake).Done())
		close(release)
		if err := receive(w, stopped); err != nil {
			w.t.Error(err)
		}
		if mu.Lock(); len(handled) != 4 {
			w.t.Errorf("%d messages were handled when the first had stopped, want 4", len(handled))
		}
		mu.Unlock()
		_, stop := w.start(handle)
		for range n {
			receive(w, done)
		}
		stop()
		for i := range n {
			if handled[i] != 1 {
				w.t.Errorf("job %d was handled %d times", i, handled[i])
			}
		}
	})
}

// A handler that does not finish in time is interrupted, and its message goes back uncounted.
func TestStopTakesTooLong(t *testing.T) {
	t.Parallel()
	onEach(t, func(w *world) {
		began := make(chan struct{}, 1)
		p, _ := w.start(func(ctx context.Context, _ queue.Delivery[job]) queue.Settlement {
			began <- struct{}{}
			<-ctx.Done()
			return queue.Abandon(ctx.Err())
		})
		w.send(jobs(1)...)
		receive(w, began)
		impatient, cancel := context.WithCancel(w.ctx)
		cancel()
		if err := p.Stop(impatient); !errors.Is(err, context.Canceled) {
			w.t.Errorf("error of Stop is %v", err)
		}
		if err := errors.Join(p.Wait(), p.Stop(w.ctx)); err != nil {
			w.t.Error(err)
		}
		counts := make(chan int, 1)
		_, stop := w.start(func(_ context.Context, d queue.Delivery[job]) queue.Settlement {
			counts <- d.Count
			return queue.Complete()
		})
		if count := receive(w, counts); count != 1 {
			w.t.Errorf("the count is %d, want 1", count)
		}
		stop()
	})
}
