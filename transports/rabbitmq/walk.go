package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	walkChunk = 100              // messages moved together
	stalled   = 10 * time.Second // how long a message, which is there, may take to come
)

// walk takes the messages that a poison queue has when it begins, calls look with each,
// oldest first, and act, if there is one, when it holds all of them. Then it gives back
// what act has not acknowledged, to its old place.
func (t *Transport) walk(ctx context.Context, subscription string, look func(*amqp.Delivery), act func(*walker) error) error {
	if t.isClosed() {
		return closedError("rabbitmq: poison queue")
	}
	if err := t.walkLocked(ctx, subscription, look, act); err != nil {
		return poisonError(subscription, err)
	}
	return nil
}

func (t *Transport) walkLocked(ctx context.Context, subscription string, look func(*amqp.Delivery), act func(*walker) error) error {
	if err := t.canExist(subscription); err != nil {
		return err
	}
	w := walker{queue: t.names.poison(subscription), acked: make(map[uint64]bool)}
	if _, err := t.inspect(ctx, w.queue); err != nil { // before there is a lock for nothing
		return err
	}
	unlock, err := t.lock(ctx, subscription)
	if err != nil {
		return err
	}
	defer unlock()
	if w.ch, err = t.con.open(ctx, func(*amqp.Channel) error { return nil }); err != nil {
		return err
	}
	err = w.takeAll(ctx, look)
	if err == nil && act != nil {
		err = act(&w)
	}
	return errors.Join(err, w.giveBack(), w.ch.Close())
}

// walker holds the messages of a poison queue.
//
// A quorum queue puts what is given back behind everything that was given back before and
// was not taken since (rabbit_fifo, returns). So a walker that took the first ten and gave
// them back would change the order: it takes all there are, also when nobody wants to see
// the rest, and gives all back, in order.
type walker struct {
	queue string
	ch    *amqp.Channel
	runs  []run
	acked map[uint64]bool
}

// run is the delivery tags of what one consumer, or one basic.get, has taken in a row.
type run struct{ first, last uint64 }

// takeAll takes as many messages as the queue says that it has. Those that come later are
// behind them, and are left alone.
func (w *walker) takeAll(ctx context.Context, look func(*amqp.Delivery)) error {
	for {
		ready, err := w.ready()
		if err != nil {
			return err
		}
		if ready > 0 {
			return w.consume(ctx, ready, look)
		}
		// A quorum queue that is busy, on RabbitMQ 3.10 for 250 ms, says that it has none.
		// basic.get waits for its true answer.
		d, ok, err := w.ch.Get(w.queue, false)
		if err != nil || !ok {
			return err
		}
		w.hold(&d, true)
		if ctx.Err() == nil {
			look(&d)
		}
	}
}

func (w *walker) ready() (int, error) {
	q, err := w.ch.QueueDeclarePassive(w.queue, true, false, false, false, nil)
	return q.Messages, err
}

func (w *walker) hold(d *amqp.Delivery, begins bool) {
	if begins {
		w.runs = append(w.runs, run{first: d.DeliveryTag})
	}
	w.runs[len(w.runs)-1].last = d.DeliveryTag
}

// consume takes n messages, by a consumer for each maxPrefetch of them. After the end of
// ctx it takes the rest without looking, for the sake of the order.
func (w *walker) consume(ctx context.Context, n int, look func(*amqp.Delivery)) error {
	for taken := 0; taken < n; {
		size := min(n-taken, maxPrefetch)
		if err := w.ch.Qos(size, 0, false); err != nil {
			return err
		}
		// A consumer gets all of it at once, and no more, since it acknowledges nothing.
		deliveries, err := w.ch.Consume(w.queue, walkerTag, false, false, false, false, nil)
		if err != nil {
			return err
		}
		for i := range size {
			d, err := next(deliveries)
			if err != nil {
				return err
			}
			w.hold(&d, i == 0)
			if ctx.Err() == nil {
				look(&d)
			}
		}
		if err := w.ch.Cancel(walkerTag, false); err != nil { // or what is given back would come here again
			return err
		}
		taken += size
	}
	if ctx.Err() != nil {
		return ended(ctx, "reading the poison queue")
	}
	return nil
}

const walkerTag = "tidings"

func next(deliveries <-chan amqp.Delivery) (amqp.Delivery, error) {
	timer := time.NewTimer(stalled)
	defer timer.Stop()
	select {
	case d, ok := <-deliveries:
		if !ok {
			return d, errLost
		}
		return d, nil
	case <-timer.C:
		return amqp.Delivery{}, errors.New("the broker does not deliver what is there")
	}
}

// ack acknowledges a message.
func (w *walker) ack(tag uint64) error {
	if err := w.ch.Ack(tag, false); err != nil {
		return err
	}
	w.acked[tag] = true
	return nil
}

const (
	// nackStep is how many messages one command returns. RabbitMQ 3.10 puts more than 32 back
	// in any order: they are the keys of an Erlang map (rabbit_fifo, return).
	nackStep = 32

	// nackWindow is how many commands are sent before the queue is waited for. A channel of
	// the broker has at most 32 commands of a quorum queue under way, joins those beyond to
	// larger ones, and drops them when it is closed (rabbit_fifo_client, SOFT_LIMIT).
	nackWindow = 16
)

// giveBack returns what is held, in order. Before it ends, the queue has applied that and
// the acknowledgements before, so that the next to look finds everything.
func (w *walker) giveBack() error {
	if w.held() == 0 && len(w.acked) > 0 {
		// basic.get is answered behind the acknowledgements. What it gets came meanwhile.
		d, ok, err := w.ch.Get(w.queue, false)
		if err != nil || !ok {
			return err
		}
		w.hold(&d, true)
	}
	returned, commands := 0, 0
	for _, r := range w.runs {
		for first := r.first; first <= r.last; first += nackStep {
			n, last := 0, uint64(0)
			for tag := first; tag <= min(first+nackStep-1, r.last); tag++ {
				if !w.acked[tag] { // the broker wants a tag that it knows
					n, last = n+1, tag
				}
			}
			if n == 0 {
				continue
			}
			if err := w.ch.Nack(last, true, true); err != nil {
				return err
			}
			returned += n
			if commands%nackWindow == 0 { // and behind the first one: now no acknowledgement is under way
				if err := w.await(returned); err != nil {
					return err
				}
			}
			commands++
		}
	}
	return w.await(returned)
}

// await waits until the queue has n messages that are ready. When it has not for long, they
// have expired, or somebody else has taken them.
func (w *walker) await(n int) error {
	ctx, cancel := context.WithTimeout(context.Background(), stalled) // also when the caller has gone
	defer cancel()
	for more := true; more; more = sleep(ctx, time.Millisecond) {
		ready, err := w.ready()
		if err != nil {
			return fmt.Errorf("return the messages: %w", err)
		}
		if ready >= n {
			return nil
		}
	}
	return nil
}

// held returns how many messages are not acknowledged.
func (w *walker) held() int {
	n := -len(w.acked)
	for _, r := range w.runs {
		n += int(r.last - r.first + 1) //nolint:gosec // what one queue has
	}
	return n
}
