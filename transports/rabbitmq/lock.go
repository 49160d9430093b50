package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

// A poison queue is locked by a queue beside it with a single active consumer and a
// ticket, a message without content: whoever wants the lock consumes there, and whoever
// gets the ticket, which the active consumer alone can, holds the lock until it closes its
// channel. Another ticket does no harm, so a process that gets none for a while publishes
// one.
//
// The lock is at no node in particular. When the holder's node dies, the next consumer
// becomes active as soon as the broker returns what the dead one held of the poison queue,
// too. An exclusive queue is no such lock: on brokers with Khepri it stays locked for as
// long as the node of its connection is down.

const (
	ticketPatience = time.Second
	lockExpires    = 10 * time.Minute // of a lock that nobody uses
	lockTickets    = 10               // the most that are kept
)

func lockArgs() amqp.Table {
	return amqp.Table{
		"x-queue-type": string(Quorum), "x-single-active-consumer": true, "x-delivery-limit": int64(poisonDeliveryLimit),
		"x-max-length": int64(lockTickets), "x-expires": lockExpires.Milliseconds(),
		disconnectedArg: disconnectedTimeout.Milliseconds(),
	}
}

// lock makes the caller the only one, on this broker, who takes messages from a
// subscription's poison queue: they are out of others' sight meanwhile.
func (t *Transport) lock(ctx context.Context, subscription string) (unlock func(), err error) {
	name := t.names.lock(subscription)
	for {
		unlock, err := t.tryLock(ctx, name)
		switch {
		case err == nil:
			return unlock, nil
		case ctx.Err() != nil || !isLost(err) && !isCode(err, amqp.NotFound): // it has expired, or was removed, in between
			return nil, fmt.Errorf("lock %q: %w", name, err)
		}
		if !sleep(ctx, firstDelay) {
			return nil, ended(ctx, waitingForLock)
		}
	}
}

const waitingForLock = "waiting for another process to be done with the poison queue"

func (t *Transport) tryLock(ctx context.Context, name string) (unlock func(), err error) {
	var before amqp.Queue
	var tickets <-chan amqp.Delivery
	ch, err := t.con.open(ctx, func(ch *amqp.Channel) (err error) {
		if before, err = ch.QueueDeclare(name, true, false, false, false, lockArgs()); err != nil {
			return explain(toDeclare, "queue", name, err)
		}
		if err := ch.Qos(1, 0, false); err != nil {
			return err
		}
		if tickets, err = ch.Consume(name, "", false, false, false, false, nil); err != nil {
			return err
		}
		return t.con.reattaches().prevent(ch)
	})
	if err != nil {
		return nil, err
	}
	unlock = func() { _ = ch.Close() } // it may be lost already
	unused := before.Messages == 0 && before.Consumers == 0
	for wait := !unused; ; wait = true {
		if wait {
			timer := time.NewTimer(ticketPatience)
			select {
			case _, ok := <-tickets:
				timer.Stop()
				if !ok {
					unlock()
					return nil, errLost
				}
				return unlock, nil
			case <-ctx.Done():
			case <-timer.C:
			}
			timer.Stop()
		}
		if ctx.Err() != nil {
			unlock()
			return nil, ended(ctx, waitingForLock)
		}
		bounded, cancel := context.WithTimeout(ctx, ticketPatience)
		err := t.store(bounded, outgoing{key: name, msg: amqp.Publishing{DeliveryMode: amqp.Persistent}})[0]
		cancel()
		switch {
		case err == nil || errors.Is(err, context.DeadlineExceeded):
		case errors.Is(err, transports.ErrNoSubscription): // the lock was removed with its subscription
			unlock()
			return nil, errLost
		default:
			unlock()
			return nil, err
		}
		if err != nil && unused && t.pub.isBlocked() {
			return unlock, nil // a broker that is short of disk takes no ticket, and must let the operator discard
		}
	}
}
