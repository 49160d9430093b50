package queue

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// DeadLettered is a message that was given up.
type DeadLettered struct {
	Handle      transports.PoisonHandle // for Redrive
	Message     *message.Message
	Reason      string // that of DeadLetter, or one of the processor's own
	Description string
	Deliveries  int
}

// DeadLetters lists the dead-letter queue, the oldest message first. The sequence ends after
// the first error.
func (p *Processor[T]) DeadLetters(ctx context.Context) iter.Seq2[DeadLettered, error] {
	return func(yield func(DeadLettered, error) bool) {
		for poisoned, err := range p.transport.Poisoned(ctx, p.cfg.Name, transports.PoisonPage{}) {
			reason, description, _ := strings.Cut(poisoned.Reason, ": ")
			if !yield(DeadLettered{poisoned.Handle, poisoned.Message, reason, description, poisoned.Attempts}, err) {
				return
			}
		}
	}
}

// Redrive puts the dead-lettered messages of these handles back into the queue, where their
// deliveries count from one again. It returns how many there were.
func (p *Processor[T]) Redrive(ctx context.Context, handles ...transports.PoisonHandle) (int, error) {
	return p.transport.RequeuePoisoned(ctx, p.cfg.Name, handles...)
}

// deadLettered describes a message that was just stored. The error is always ours, unless
// middleware of the configuration's has made it.
func deadLettered(msg *message.Message, err error) DeadLettered {
	d := DeadLettered{Message: msg, Deliveries: transports.Attempts(msg)}
	if e, ok := errors.AsType[*DeadLetterError](err); ok {
		d.Reason, d.Description = e.Reason, e.Description
	} else {
		d.Reason, d.Description, _ = strings.Cut(fmt.Sprint(err), ": ")
	}
	return d
}
