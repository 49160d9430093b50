package rabbitmq

import (
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

// What the count of a message's earlier deliveries means. RabbitMQ before 4.3 counts each
// delivery that was not settled. From 4.3 on, it counts those that were rejected or whose
// channel was closed, and not those that were nacked or that timed out.
const (
	// suspectAfter: such a message may have ended the process, so it is handled apart from
	// others, which are then not to blame for the next time.
	suspectAfter = 2

	// renewAfter: a message that is given back by a process that lives is given back as
	// a copy, whose count begins at zero. The broker's limit is for those that kill.
	renewAfter = 10

	// crashLimit: nobody who was alive has given it back for so long that it must be
	// what they die of. It is poisoned.
	crashLimit = 20

	// orderedCrashLimit is that of ordered subscriptions, in which a copy would lose its
	// place, so that those who live count too: each deploy, and each 15 minutes of a pause,
	// after which what is held goes back. It is ten days of pause.
	orderedCrashLimit = 1000
)

// suspects decides how many suspects are handled together. A deploy can interrupt many
// messages twice, and at most one of them kills. So the first suspect is handled alone, and
// each one that is handled makes room for one more: 1, 2, 4, 8 together. A message with a
// higher count than all those that were handled starts this again, as it was delivered once
// more than they were.
type suspects struct {
	mu    sync.Mutex // guards what follows
	level int        // the highest count of a suspect that was handled here
	width int        // how many suspects, up to this level, may be in flight together
}

// room returns how many messages may be in flight with one that has this count.
func (s *suspects) room(count, all int) int {
	if count < suspectAfter {
		return all
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if count > s.level {
		return 1
	}
	return min(s.width, all)
}

// survived tells that a message with this count was handled.
func (s *suspects) survived(count int) {
	if count < suspectAfter {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if count > s.level {
		s.level, s.width = count, 1
	}
	s.width++
}

// admit waits until a message with this count may be delivered: suspects are not in flight
// with other messages, unless so many may be that there is no difference.
func (c *consumer) admit(r *reception, count int) outcome {
	for {
		room := c.suspects.room(count, c.sub.Concurrency)
		confined, limit := room < c.sub.Concurrency, room-1
		if confined != c.confined {
			limit = 0
		}
		if c.inFlight.Load() <= int64(limit) {
			c.confined = confined
			return goOn
		}
		if why := c.nextSettled(c.intake.Done(), r.lost); why != goOn {
			return why
		}
	}
}

// hopeless reports whether a message is to be given up without another try. In an ordered
// subscription those behind a message that kills were delivered as often as it was, so
// only the first one is, until the next crash tells that it was not the only one.
func (c *consumer) hopeless(r *reception, count int) bool {
	if c.sub.Ordered {
		return count >= orderedCrashLimit && !r.gaveUp
	}
	return count >= crashLimit
}

// giveUp poisons a message that seems to end the processes that handle it.
func (c *consumer) giveUp(r *reception, d *amqp.Delivery, n int) outcome {
	msg := decode(d, c.t.cfg.Exchange)
	host, _ := os.Hostname() // empty when unknown
	p := transports.ReadPoisoned(msg)
	p.Reason = fmt.Sprintf("delivered %d times and settled by nobody: the process that handles it seems to die of it", n)
	p.LastFailure = time.Now()
	p.Subscription, p.Topic, p.Host = c.sub.Name, transports.Topic(msg), host
	transports.WritePoisoned(p)
	for {
		err := c.t.poison(c.base, c.sub.Name, msg)
		if err == nil {
			c.log.Error("a message is poisoned: the processes that handle it seem to die of it", slog.String("event_id", msg.UUID), slog.Int("deliveries", n))
			r.acks.ack(d.DeliveryTag)
			r.gaveUp = true
			return goOn
		}
		c.log.Error("poison queue can't be written; the subscription waits until it can", slog.Any("error", err))
		timer := time.NewTimer(patience)
		select {
		case <-timer.C:
		case <-c.intake.Done():
			return intakeEnded
		case <-c.base.Done():
			return killed
		case <-r.lost:
			return channelLost
		}
	}
}
