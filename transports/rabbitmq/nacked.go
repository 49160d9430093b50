package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A nack says that a queue has not taken the message: it is full, or has no leader. The
// other queues that the message is for may have it, and each further try is one more copy
// for them. So few are made.
//
// One message is tried at a time, by the isolator, on a channel of its own: after 1 s, 2 s, 4 s
// and so on. Once it is taken, the rest of its address follows, 2 messages, 4, 8 and so on, until
// one is nacked again. What is nacked nackTries times in a row is given up, unless it can reach
// one queue only, which then does not have it.
const (
	nackDelay    = time.Second
	nackMaxDelay = 16 * time.Second
	nackTries    = 5
)

// publishNacked tries again what was nacked in a call, and sets the results.
func (p *publisher) publishNacked(ctx context.Context, first *call) {
	results := first.results
	var pending []int // in first.messages
	for i, err := range results {
		if errors.Is(err, errNacked) {
			pending = append(pending, i)
		}
	}
	tries, delay := 0, p.nackDelay
	for len(pending) > 0 {
		if tries == nackTries {
			if pending = p.givenUp(first, pending); len(pending) == 0 {
				return
			}
		}
		if !sleep(ctx, delay) {
			for _, i := range pending {
				results[i] = ended(ctx, errNacked.Error())
			}
			return
		}
		same, others := byAddress(first.messages, pending)
		c := newCall(ctx, first.messages[same[0]:same[0]+1])
		p.isolator.add(job{call: c, indexes: []int{0}})
		results[same[0]] = c.wait(p)[0]
		if c.nacked { // then another address is tried
			pending = slices.Concat(others, same)
			tries, delay = tries+1, min(2*delay, max(p.nackDelay, nackMaxDelay))
			continue
		}
		if results[same[0]] == nil && first.lane != nil { // it was the channel, or the queue takes messages again
			first.lane.renew(first.opened)
		}
		same = p.publishMore(ctx, first, same[1:])
		pending = slices.Concat(same, others)
		tries, delay = 0, p.nackDelay
	}
}

// publishMore publishes messages, twice as many each time, until one is nacked, and returns
// those that still are.
func (p *publisher) publishMore(ctx context.Context, first *call, pending []int) (nacked []int) {
	for n := 2; len(pending) > 0 && len(nacked) == 0; n *= 2 {
		chunk := pending[:min(n, len(pending))]
		messages := make([]outgoing, len(chunk))
		for i, at := range chunk {
			messages[i] = first.messages[at]
		}
		c := newCall(ctx, messages)
		p.send(c)
		for i, err := range c.wait(p) {
			first.results[chunk[i]] = err
			if errors.Is(err, errNacked) {
				nacked = append(nacked, chunk[i])
			}
		}
		pending = pending[len(chunk):]
		if c.lane != nil {
			first.lane, first.opened = c.lane, c.opened
		}
	}
	return append(nacked, pending...)
}

// byAddress returns the messages with the address of the first one, and the others.
func byAddress(messages []outgoing, pending []int) (same, others []int) {
	for _, i := range pending {
		if messages[i].address() == messages[pending[0]].address() {
			same = append(same, i)
		} else {
			others = append(others, i)
		}
	}
	return same, others
}

// givenUp returns those of the messages that are tried for as long as it takes, because they
// reach one queue at most, and sets the results of the others.
func (p *publisher) givenUp(c *call, pending []int) (forever []int) {
	for _, i := range pending {
		if c.messages[i].exchange != p.exchange {
			forever = append(forever, i)
			continue
		}
		c.results[i] = fmt.Errorf("%w in %d tries: a queue that it is for is full, or has no leader", errNacked, nackTries+1)
	}
	return forever
}
