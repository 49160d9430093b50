package memory

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// ledger is what publishers and consumers know for sure.
type ledger struct {
	mu        sync.Mutex                // guards all below
	published map[string]bool           // Publish returned nil
	acked     map[string]map[string]int // by subscription and id
	open      int                       // acknowledgements still to come
	publishes int                       // publishers that have not finished
	finished  chan struct{}
}

func (l *ledger) publish(ctx context.Context, tr *Transport, id string) error {
	l.add(len(l.acked)) // before the first acknowledgement can come
	err := tr.Publish("topic."+id, newMessage(ctx, id))
	if err != nil {
		l.add(-len(l.acked))
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.published[id] = true
	return nil
}

func (l *ledger) add(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open += n
}

func (l *ledger) ack(name, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[name][id]++
	l.open--
	l.checkFinished()
}

func (l *ledger) publisherEnds() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.publishes--
	l.checkFinished()
}

// checkFinished is called with mu held. A handler that publishes has a message
// open itself, so that it ends here once.
func (l *ledger) checkFinished() {
	if l.open == 0 && l.publishes == 0 {
		close(l.finished)
	}
}

// Whatever publishers, consumers and transports do, each subscription
// acknowledges each published message once.
func TestNothingIsLostOrDoubled(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 3, 50} {
		t.Run(fmt.Sprint("queue of ", size), func(t *testing.T) {
			t.Parallel()
			stress(t, size)
		})
	}
}

func stress(t *testing.T, size int) {
	t.Helper()
	const publishers, each, consumers = 5, 150, 3
	names := map[string]string{"all": "#", "topics": "topic.*", "many": "topic.#"}
	b := newBroker(t, Config{QueueSize: size})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l := &ledger{published: map[string]bool{}, acked: map[string]map[string]int{}, publishes: publishers, finished: make(chan struct{})}
	for name, pattern := range names {
		l.acked[name] = map[string]int{}
		declare(t, connect(t, b), sub(name, pattern))
	}

	var wg sync.WaitGroup
	for p := range publishers {
		tr := connect(t, b)
		wg.Go(func() {
			defer l.publisherEnds()
			for i := range each {
				id := fmt.Sprintf("%d-%d", p, i)
				for ctx.Err() == nil {
					attempt, stop := context.WithTimeout(ctx, time.Duration(1+rand.IntN(10_000))*time.Microsecond)
					err := l.publish(attempt, tr, id)
					stop()
					if err == nil {
						break
					}
					id += "'" // the failed one must not turn up
				}
			}
		})
	}
	for name := range names {
		for c := range consumers {
			wg.Go(func() {
				for life := 0; ctx.Err() == nil; life++ {
					select {
					case <-l.finished:
						return
					default:
						consumeForALife(ctx, t, b, l, name, fmt.Sprintf("%s-%d-%d", name, c, life))
					}
				}
			})
		}
	}
	wg.Wait()
	if ctx.Err() != nil {
		t.Errorf("not finished in time: %d acknowledgements are open", l.open)
	}
	for name := range names {
		for id := range l.published {
			if n := l.acked[name][id]; n != 1 {
				t.Errorf("%s: %s was acknowledged %d times", name, id, n)
			}
		}
		if got, want := len(l.acked[name]), len(l.published); got != want {
			t.Errorf("%s acknowledged %d messages of %d", name, got, want)
		}
		if d := depth(t, connect(t, b), name); d != (transports.Depth{}) {
			t.Errorf("%s still holds %+v", name, d)
		}
	}
}

// consumeForALife consumes on a transport of its own until that dies in one way
// or another. Nobody else settles its messages, so it knows what became of each.
func consumeForALife(ctx context.Context, t *testing.T, b *Broker, l *ledger, name, lifeID string) {
	t.Helper()
	tr := b.Connect()
	defer func() { _ = tr.Close() }()
	intake, stop := context.WithCancel(ctx)
	defer stop()
	limit := 1 + rand.IntN(4)
	ch, err := tr.Subscribe(intake, transports.Subscription{Name: name, Topics: []string{"#"}, Concurrency: limit})
	if err != nil {
		t.Error(err)
		return
	}
	var inFlight []*message.Message
	for step := range 100 {
		var in <-chan *message.Message
		var settle chan struct{}
		if len(inFlight) < limit {
			in = ch
		}
		if len(inFlight) > 0 {
			settle = make(chan struct{})
			close(settle)
		}
		select {
		case msg := <-in:
			inFlight = append(inFlight, msg)
			continue
		case <-l.finished:
			return
		case <-ctx.Done():
			return
		case <-settle:
		}
		i := rand.IntN(len(inFlight))
		msg := inFlight[i]
		inFlight = append(inFlight[:i:i], inFlight[i+1:]...)
		switch op := rand.IntN(100); {
		case op < 60:
			msg.Ack()
			l.ack(name, msg.UUID)
		case op < 75:
			msg.Nack()
		case op < 85:
			if err := tr.Requeue(ctx, name, msg, time.Duration(rand.IntN(2000))*time.Microsecond); err != nil {
				t.Error(err)
			}
			msg.Ack()
		case op < 90:
			if err := l.publish(msg.Context(), tr, fmt.Sprintf("child-%s-%d", lifeID, step)); err != nil {
				t.Error(err)
			}
			msg.Ack()
			l.ack(name, msg.UUID)
		case op < 95:
			checkInvariants(t, b)
			msg.Nack()
		case op < 98: // dies with all that it has
			return
		default: // ends in an orderly way
			msg.Ack()
			l.ack(name, msg.UUID)
			stop()
			for _, msg := range inFlight {
				msg.Ack()
				l.ack(name, msg.UUID)
			}
			for msg := range ch {
				msg.Nack()
			}
			return
		}
	}
}
