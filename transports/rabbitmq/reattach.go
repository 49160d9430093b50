package rabbitmq

import (
	"strconv"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// reattaching is whether a broker may attach the consumers of a deleted quorum queue to a
// new one of the same name.
//
// Brokers before 4.0 consume again before they tell a consumer that its queue is gone
// (rabbit_channel, handle_consuming_queue_down_or_eol). If there is a queue of that name by
// then, the client hears nothing, and the broker drops what the new queue delivers to it. A
// prefetch for all consumers of a channel prevents that: with it, a channel can't consume a
// quorum queue, so the attempt fails and the broker cancels the consumer. It does not limit
// the deliveries of quorum queues. Later brokers cancel at once.
//
// The consumer argument x-cancel-on-ha-failover would do the same, but quorum queues refuse
// it. A classic queue does not need it: its consumers are told after its name is gone.
type reattaching bool

// prevent is called after the channel has begun to consume.
func (r reattaching) prevent(ch *amqp.Channel) error {
	if !r {
		return nil
	}
	return ch.Qos(maxPrefetch, 0, true)
}

// allow is called before the channel consumes again.
func (r reattaching) allow(ch *amqp.Channel) error {
	if !r {
		return nil
	}
	return ch.Qos(0, 0, true)
}

// reattaches reports it of the broker that c is, or was, connected to.
func (c *connection) reattaches() reattaching {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reattaching
}

// reattachesAt reports it of a broker by the properties that it has sent.
func reattachesAt(server amqp.Table) reattaching {
	version, _ := server["version"].(string)
	major, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(major)
	return err == nil && n < 4
}
