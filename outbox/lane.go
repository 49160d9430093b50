package outbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/internal/lease"
	"github.com/gotidings/tidings/transports"
)

// lane sends the events of some partition keys, one batch after the other: the next one
// begins when the broker has confirmed the last, or when what failed of it is parked. So a
// key has one unconfirmed batch at most, and order is kept whatever fails.
//
//	idle ──► batch ──► sending ──confirmed──► acknowledged ──► idle
//	                    ▲   │
//	                    │   ├─ destination away ─► paused ─► (nothing is written or counted)
//	                    └───┴─ event refused ────► waiting, counted ─► parked after Attempts
type lane struct {
	*sender
	in      chan *message.Message
	batch   []*message.Message
	failure failure
}

// failure is what has gone wrong with a batch.
type failure struct {
	wholes   int         // times that it failed as a whole
	attempts map[int]int // by index in batch: times that the destination refused an event
	began    bool
	sent     int64 // the relay's count of events sent when it began
	delay    time.Duration
}

func (l *lane) run() {
	for msg := range l.in {
		l.batch = append(l.batch[:0], msg)
		for bytes := len(msg.Payload); len(l.batch) < l.relay.cfg.Batch && bytes < batchBytes; {
			select {
			case msg, ok := <-l.in:
				if ok {
					l.batch = append(l.batch, msg)
					bytes += len(msg.Payload)
					continue
				}
			default:
			}
			break
		}
		l.deliver()
	}
}

// batchBytes of payload end a batch: a destination that is slow with it would have no time
// to confirm it before the relay stops.
const batchBytes = 4 << 20

// deliver sends the batch until all of it is confirmed or parked, or the run ends.
func (l *lane) deliver() {
	l.failure = failure{delay: l.relay.cfg.MinDelay}
	for len(l.batch) > 0 {
		if l.stopped.Err() != nil || l.ctx.Err() != nil {
			l.giveBack()
			return
		}
		if !l.hold() {
			continue
		}
		results := l.send()
		kept := l.batch[:0]
		attempts := make(map[int]int)
		for i, msg := range l.batch {
			err := results[i]
			switch n := l.failure.attempts[i] + 1; {
			case err == nil:
				msg.Ack()
				l.relay.sent.Add(1)
				continue
			case !err.counted:
				attempts[len(kept)] = n - 1
			case n < l.relay.cfg.Attempts && !errors.Is(err.error, transports.ErrTooLarge):
				attempts[len(kept)] = n
			case l.park(msg, err.error, n):
				msg.Ack()
				continue
			default:
				attempts[len(kept)] = n - 1 // and parked later
			}
			kept = append(kept, msg)
		}
		clear(l.batch[len(kept):])
		l.batch, l.failure.attempts = kept, attempts
		if len(kept) == 0 {
			return
		}
		l.pause()
	}
}

// pause waits before the next attempt.
func (l *lane) pause() {
	l.wait(l.failure.delay)
	l.failure.delay = min(2*l.failure.delay, l.relay.cfg.MaxDelay)
}

func (l *lane) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.stopped.Done():
	}
}

// giveBack returns what was not confirmed to the log.
func (l *lane) giveBack() {
	for i, msg := range l.batch {
		msg.Nack()
		l.batch[i] = nil
	}
	l.batch = l.batch[:0]
}

// result is why an event was not confirmed, and whether that is its own fault.
type result struct {
	error
	counted bool
}

// send sends the batch and returns a result for each event of it.
func (l *lane) send() []*result {
	ctx, done := l.leased()
	defer done()
	results := make([]*result, len(l.batch))
	if l.failure.wholes >= wholeAttempts && len(l.batch) > 1 {
		l.sendSingly(ctx, results)
		return results
	}
	err := l.publish(ctx, l.batch)
	if err == nil {
		return results
	}
	l.relay.log.WarnContext(ctx, "events are not sent", "events", len(l.batch), "error", err)
	if partial, ok := errors.AsType[*transports.PublishError](err); ok && (len(partial.Failures) < len(l.batch) || definite(partial)) {
		for _, f := range partial.Failures {
			if f.Index >= 0 && f.Index < len(results) {
				results[f.Index] = &result{f.Err, !l.away(ctx, f.Err)}
			}
		}
		l.failure.wholes = 0
		return results
	}
	counted := len(l.batch) == 1 && l.blame(ctx, err)
	for i := range results {
		results[i] = &result{err, counted}
	}
	if !l.away(ctx, err) {
		l.failure.wholes++
	}
	return results
}

// wholeAttempts is how often a batch may fail as a whole before its events are sent one by
// one, to find out which of them is at fault.
const wholeAttempts = 3

// definite reports whether a batch that failed in all of its events did so by their fault.
func definite(err *transports.PublishError) bool {
	for _, f := range err.Failures {
		if !errors.Is(f.Err, transports.ErrTooLarge) {
			return false
		}
	}
	return true
}

// sendSingly sends the events one after the other. When all of them fail, it is the
// destination that does; else those that fail are at fault. What comes after a failure of
// its partition key is not sent, so that it can't overtake.
func (l *lane) sendSingly(ctx context.Context, results []*result) {
	failed := make(map[string]bool)
	sent := 0
	for i, msg := range l.batch {
		key := msg.Metadata[partitionKey]
		if key != "" && failed[key] {
			results[i] = &result{error: errBehind}
			continue
		}
		err := l.publish(ctx, l.batch[i:i+1])
		if err == nil {
			sent++
			continue
		}
		failed[key] = true
		results[i] = &result{err, l.blame(ctx, err)}
		if sent == 0 && !results[i].counted { // the destination is away: do not ask for each
			for j := i + 1; j < len(results); j++ {
				results[j] = &result{error: errBehind}
			}
			return
		}
	}
	for _, r := range results {
		if sent > 0 && r != nil && !errors.Is(r.error, errBehind) && !l.away(ctx, r.error) {
			r.counted = true
		}
	}
}

var errBehind = errors.New("waits for an event before it")

// away reports whether an error says nothing of the event: the attempt was given up, or
// the destination is closed.
func (l *lane) away(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, transports.ErrClosed) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// blame reports whether a single event that could not be sent is at fault, and not the
// destination. A transport that sends batches waits while its broker is away, so what it
// returns is about the event. Others are asked whether the broker answers, and if they
// can't tell, it does if anything else was sent since the failures began.
func (l *lane) blame(ctx context.Context, err error) bool {
	switch {
	case l.away(ctx, err):
		return false
	case errors.Is(err, transports.ErrTooLarge):
		return true
	}
	if _, ok := l.relay.cfg.To.(transports.BatchPublisher); ok {
		return true
	}
	if pinger, ok := l.relay.cfg.To.(transports.Pinger); ok {
		ctx, cancel := context.WithTimeout(ctx, pingTimeout)
		defer cancel()
		return pinger.Ping(ctx) == nil
	}
	sent := l.relay.sent.Load()
	if !l.failure.began {
		l.failure.began, l.failure.sent = true, sent
	}
	return sent > l.failure.sent
}

const pingTimeout = 5 * time.Second

// publish gives copies to the destination, which may keep them and change them.
func (l *lane) publish(ctx context.Context, batch []*message.Message) error {
	out := make([]transports.Outgoing, len(batch))
	for i, msg := range batch {
		out[i] = transports.Outgoing{Topic: transports.Topic(msg), Message: outgoingCopy(msg)}
	}
	return l.relay.send(ctx, out)
}

// outgoingCopy is a message as it was published, without what the log has added.
func outgoingCopy(msg *message.Message) *message.Message {
	out := &message.Message{UUID: msg.UUID, Metadata: maps.Clone(msg.Metadata), Payload: msg.Payload}
	delete(out.Metadata, transports.HeaderTopic)
	return out
}

// publishRuns is for transports that take no batches: messages of one topic that follow
// each other go together.
func publishRuns(to transports.Transport, batch []transports.Outgoing) error {
	var failures []transports.PublishFailure
	for start := 0; start < len(batch); {
		var run []*message.Message
		end := start
		for ; end < len(batch) && batch[end].Topic == batch[start].Topic; end++ {
			run = append(run, batch[end].Message)
		}
		err := to.Publish(batch[start].Topic, run...)
		partial, ok := errors.AsType[*transports.PublishError](err)
		switch {
		case ok:
			for _, f := range partial.Failures {
				failures = append(failures, transports.PublishFailure{Index: start + f.Index, Err: f.Err})
			}
		case err != nil && start == 0 && end < len(batch): // the rest would fail as well, or overtake
			return err
		case err != nil:
			for i := start; i < len(batch); i++ {
				failures = append(failures, transports.PublishFailure{Index: i, Err: err})
			}
			return transports.BatchError(len(batch), failures)
		}
		start = end
	}
	return transports.BatchError(len(batch), failures)
}

// hold gives up the events that are the relay's no longer, and reports whether the rest can
// be sent: while it is not known whether a lease has been renewed in time, it waits. What
// was given up comes again, before anything that comes after it in the log: see the
// consumer of an ordered subscription.
func (l *lane) hold() bool {
	kept, attempts := l.batch[:0], make(map[int]int)
	certain := true
	for i, msg := range l.batch {
		until, known := heldUntil(msg)
		if known && until.IsZero() || msg.Context().Err() != nil {
			msg.Nack()
			continue
		}
		certain = certain && (!known || time.Until(until) > 0)
		attempts[len(kept)] = l.failure.attempts[i]
		kept = append(kept, msg)
	}
	clear(l.batch[len(kept):])
	l.batch, l.failure.attempts = kept, attempts
	if len(kept) == 0 {
		return false
	}
	if !certain {
		l.wait(l.relay.cfg.MinDelay)
	}
	return certain
}

func heldUntil(msg *message.Message) (until time.Time, known bool) {
	fn := lease.Of(msg.Context())
	if fn == nil {
		return time.Time{}, false
	}
	return fn(), true
}

// leased returns a context that ends when the lease of an event in the batch does: somebody
// else may then send the same events, and later ones of the same keys.
func (l *lane) leased() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(l.ctx)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			select {
			case <-timer.C:
			case <-done:
				return
			}
			left := l.relay.cfg.Lease
			for _, msg := range l.batch {
				if until, known := heldUntil(msg); known {
					left = min(left, time.Until(until))
				}
			}
			if left <= 0 {
				cancel(errLeaseLost)
				return
			}
			timer.Reset(left)
		}
	}()
	return ctx, func() {
		close(done)
		<-ended
		cancel(nil)
	}
}

var errLeaseLost = errors.New("another relay may be active now")

// park moves an event to the poison queue, and reports whether it could.
func (l *lane) park(msg *message.Message, cause error, attempts int) bool {
	parked := msg.Copy()
	now := time.Now()
	transports.WritePoisoned(transports.Poisoned{
		Message: parked, Reason: cause.Error(), ErrorType: fmt.Sprintf("%T", innermost(cause)), Attempts: attempts,
		FirstFailure: now, LastFailure: now, Subscription: l.relay.Subscription(), Topic: transports.Topic(msg),
		Service: l.relay.ob.cfg.Source,
	})
	if err := l.poison.Poison(l.ctx, l.relay.Subscription(), parked); err != nil {
		l.relay.log.WarnContext(l.ctx, "an event can't be parked, and waits", "id", msg.UUID, "error", err)
		return false
	}
	l.relay.log.WarnContext(l.ctx, "an event is parked: the destination refuses it", "id", msg.UUID, "type", transports.Topic(msg), "attempts", attempts, "error", cause)
	return true
}

func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
