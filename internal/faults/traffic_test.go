package faults_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
)

const topic = "faults.traffic"

var errLate = errors.New("the publish did not end with its context")

var trafficSubscription = transports.Subscription{Name: serviceName + ".traffic", Topics: []string{topic}, Concurrency: 32}

// traffic is 20,000 events and more on their way from eight publishers to two consumers
// of one subscription, while the test does harm.
type traffic struct {
	ledger *ledger
	next   int           // of the ids; guarded by mu
	mu     sync.Mutex    // guards next
	enough chan struct{} // closed when no more need to be published
}

const trafficEvents = 20_000

// run publishes from one goroutine, singly and in batches by turns, until enough.
func (f *traffic) run(ctx context.Context, tr transports.Transport, random *rand.Rand) {
	for {
		select {
		case <-f.enough:
			return
		case <-ctx.Done():
			return
		default:
		}
		n := 1
		if random.IntN(2) == 0 {
			n += random.IntN(20)
		}
		ids := f.take(n)
		messages := make([]*message.Message, n)
		for i, id := range ids {
			messages[i] = newMessage(ctx, topic, id)
		}
		f.ledger.published(tr.Publish(topic, messages...), ids...)
	}
}

func (f *traffic) take(n int) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	ids := make([]string, n)
	for i := range ids {
		ids[i] = strconv.Itoa(f.next)
		f.next++
	}
	return ids
}

// underHarm runs traffic through url. It calls harm at random moments, times in all,
// before trafficEvents events were acknowledged, or soon after where harm takes longer
// than the events do. Then it wants nothing to be lost, and all that was declared at the
// broker to be there still.
func underHarm(t *testing.T, b *testserver.Broker, url string, times int, harm func(random *rand.Rand)) {
	t.Helper()
	random := newRand(t)
	ctx, cancel := context.WithCancel(withPatience(t))
	l := newLedger()

	consuming, stop := context.WithCancel(ctx)
	var consumers sync.WaitGroup
	defer consumers.Wait()
	defer stop()
	for range 2 {
		consumers.Go(consume(consuming, t, open(t, url), trafficSubscription, l))
	}
	before := topology(b)

	f := &traffic{ledger: l, enough: make(chan struct{})}
	publisher := open(t, url)
	var publishers sync.WaitGroup
	defer publishers.Wait()
	defer cancel() // after a failure, publishers are to end at once
	for range 8 {
		seed := random.Uint64()
		publishers.Go(func() { f.run(ctx, publisher, rand.New(rand.NewPCG(seed, 1))) })
	}
	moments := make([]int, times)
	for i := range moments {
		moments[i] = random.IntN(trafficEvents)
	}
	slices.Sort(moments)
	start := time.Now()
	for i, moment := range moments {
		// Every other moment is one of handling, every other one of publishing.
		await := l.awaitAcknowledged
		if i%2 == 1 {
			await = l.awaitHandled
		}
		if err := await(ctx, moment); err != nil {
			t.Fatalf("after %d of %d times: %v", i, times, err)
		}
		harm(random)
	}
	if err := l.awaitAcknowledged(ctx, trafficEvents); err != nil {
		t.Fatal(err)
	}
	close(f.enough)
	publishers.Wait()
	l.reconcile(ctx, t)
	t.Logf("%s, handled again %d, in %s", l, l.repeated(), time.Since(start).Round(time.Millisecond))

	wantTopology(t, b, before)
	wantNonePoisoned(t, publisher, trafficSubscription.Name)
	id := "last"
	l.published(publisher.Publish(topic, newMessage(ctx, topic, id)), id)
	l.reconcile(ctx, t)
}

// Every connection is cut, 25 times, and for up to 200 ms there are no new ones.
func TestConnectionsCut(t *testing.T) {
	t.Parallel()
	b := testserver.StartRabbitMQ(t)
	p := startProxy(t, b.Addr())
	underHarm(t, b, "amqp://guest:guest@"+p.Listen+"/", 25, func(random *rand.Rand) {
		p.cut()
		if random.IntN(2) == 0 {
			<-time.After(time.Duration(random.IntN(200)) * time.Millisecond)
		}
		p.restore(t)
	})
}

// The broker itself closes every connection, as an operator can make it do.
func TestConnectionsClosedByTheBroker(t *testing.T) {
	t.Parallel()
	b := testserver.StartRabbitMQ(t)
	underHarm(t, b, b.URL(), 5, func(*rand.Rand) { b.Ctl("close_all_connections", "fault test") })
}

// The broker is killed and started again on its data.
func TestBrokerKilled(t *testing.T) {
	t.Parallel()
	b := testserver.StartRabbitMQ(t)
	underHarm(t, b, b.URL(), 3, func(*rand.Rand) {
		b.Kill()
		b.Start()
	})
}

// A broker that is short of memory takes nothing from publishers. They are told in
// time, what waits is delivered still, and all goes on when there is memory again.
func TestMemoryAlarm(t *testing.T) {
	t.Parallel()
	b := testserver.StartRabbitMQ(t)
	ctx := withPatience(t)
	l := newLedger()
	tr := open(t, b.URL())
	declare(t, tr, trafficSubscription)
	const waiting = 100
	for i := range waiting {
		id := fmt.Sprintf("waiting-%d", i)
		l.published(tr.Publish(topic, newMessage(ctx, topic, id)), id)
	}

	b.Ctl("set_vm_memory_high_watermark", "0")
	const deadline = 2 * time.Second
	const callers = 32
	results := make(chan error, callers)
	for i := range callers {
		go func() {
			ctx, cancel := context.WithTimeout(ctx, deadline)
			defer cancel()
			start := time.Now()
			err := tr.Publish(topic, newMessage(ctx, topic, fmt.Sprintf("doubtful-%d", i)))
			if took := time.Since(start); took > deadline+time.Second {
				err = fmt.Errorf("%w, after %s", errLate, took)
			}
			results <- err
		}()
	}
	wantBlocked(t, results, callers)

	consuming, stop := context.WithCancel(ctx)
	wait := consume(consuming, t, open(t, b.URL()), trafficSubscription, l)
	defer func() {
		stop()
		wait()
	}()
	if err := l.awaitHandled(ctx, waiting); err != nil {
		t.Errorf("during the alarm: %v", err)
	}

	patient := make(chan error, 1)
	go func() { patient <- tr.Publish(topic, newMessage(ctx, topic, "patient")) }()
	b.Ctl("set_vm_memory_high_watermark", "0.4")
	l.published(<-patient, "patient")
	l.published(tr.Publish(topic, newMessage(ctx, topic, "last")), "last")
	l.reconcile(ctx, t)
}

// sayWhy matches what tells an operator that the broker is to blame.
var sayWhy = regexp.MustCompile(`block|short of|alarm`)

// wantBlocked wants each of n publishes to end with its context, in time, and to say why
// the broker did not take it.
func wantBlocked(t *testing.T, results <-chan error, n int) {
	t.Helper()
	faults := make(map[string]int)
	for range n {
		err := <-results
		if !errors.Is(err, context.DeadlineExceeded) || !sayWhy.MatchString(err.Error()) {
			faults[fmt.Sprint(err)]++
		}
	}
	for fault, times := range faults {
		t.Errorf("%d of %d publishes during the alarm returned %q; want the end of the context, and that it is the broker that takes nothing", times, n, fault)
	}
}
