package document

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// StepFunc does a step: it sets its part of the results. An error that wraps [ErrRejected]
// fails the document; any other one means that the step can't be done now. It may be called
// again for a step that was done, after a crash: what it does elsewhere must be idempotent.
type StepFunc func(ctx context.Context, d *Document) error

// Processor takes documents through the steps. Its methods may be called concurrently.
type Processor struct {
	store *Store
	steps map[Step]StepFunc
	time  estimate
}

// NewProcessor makes a processor. It panics when one of [Steps] is missing.
func NewProcessor(store *Store, steps map[Step]StepFunc) *Processor {
	for _, step := range Steps {
		if steps[step] == nil {
			panic("document: nobody does the step " + step)
		}
	}
	return &Processor{store: store, steps: steps, time: estimate{took: make(map[Step]time.Duration)}}
}

// StepError is why a step can't be done now. Every other error of [Processor.Process] is the
// store's, and says nothing about the document.
type StepError struct {
	Step Step
	Err  error
}

func (e *StepError) Error() string { return fmt.Sprintf("%s: %v", e.Step, e.Err) }
func (e *StepError) Unwrap() error { return e.Err }

// Process takes a document from where it is to its end. It returns nil when the document is
// final, also when it was before: a second delivery of its message does nothing. After an
// error, Process goes on with the step that it had reached.
func (p *Processor) Process(ctx context.Context, id string) error {
	d, err := p.store.Get(ctx, id)
	if err != nil || d.Status.Final() {
		return err
	}
	for _, step := range Steps[max(0, slices.Index(Steps, d.Step)):] {
		if d.Step != step { // or it was begun by an earlier delivery
			d.Begin(step, p.time.from(step))
			if err := p.store.Save(ctx, &d); err != nil {
				return err
			}
		}
		began := time.Now()
		err := p.steps[step](ctx, &d)
		if errors.Is(err, ErrRejected) {
			d.Fail(fmt.Sprintf("%s: %v", step, err))
			return p.store.Save(ctx, &d)
		}
		if err != nil {
			return &StepError{step, err}
		}
		p.time.add(step, time.Since(began))
	}
	d.Finish()
	return p.store.Save(ctx, &d)
}

// GiveUp fails a document whose message is not delivered any more.
func (p *Processor) GiveUp(ctx context.Context, id, reason string) error {
	for {
		d, err := p.store.Get(ctx, id)
		if err != nil || d.Status.Final() {
			return err
		}
		d.Fail(reason)
		if err = p.store.Save(ctx, &d); !errors.Is(err, ErrConflict) {
			return err
		}
	}
}

// estimate knows how long the steps take.
type estimate struct {
	mu   sync.Mutex // guards took
	took map[Step]time.Duration
}

// add moves the estimate a quarter of the way to what was measured.
func (e *estimate) add(step Step, took time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if known := e.took[step]; known != 0 {
		took = known + (took-known)/4
	}
	e.took[step] = took
}

// from returns how long it takes from the beginning of a step to the end. What nobody knows
// yet counts as nothing.
func (e *estimate) from(step Step) (sum time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range Steps[slices.Index(Steps, step):] {
		sum += e.took[s]
	}
	return sum
}
