package main

import (
	"context"
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/examples/documents/internal/analysis"
	"github.com/gotidings/tidings/examples/documents/internal/document"
	"github.com/gotidings/tidings/examples/documents/internal/handlers"
	"github.com/gotidings/tidings/examples/documents/internal/httpclient"
	"github.com/gotidings/tidings/examples/documents/internal/payments"
	"github.com/gotidings/tidings/examples/documents/internal/queue"
	"github.com/gotidings/tidings/examples/documents/internal/tracing"
	"github.com/gotidings/tidings/inbox"
)

// price is what the processing of a document costs.
const (
	price    = "0.10"
	currency = "EUR"
)

// workerRole processes documents, and handles the events of those that are processed.
type workerRole struct {
	ib        *inbox.Inbox
	analysis  *httpclient.Client
	payments  *httpclient.Client
	processor *document.Processor
	queue     *queue.Processor[document.Requested]
}

func (s *service) openWorker(ctx context.Context) (r *workerRole, err error) {
	r = &workerRole{}
	if r.ib, err = inbox.New(ctx, inbox.Config{DB: s.db, Prefix: tablePrefix, Logger: s.log}); err != nil {
		return r, err
	}
	handlers.Notify(s.bus, s.store, s.log)
	handlers.Count(s.bus, r.ib)
	if r.analysis, err = s.client("analysis", s.clients.analysis, document.MaxJSON); err != nil {
		return r, err
	}
	if r.payments, err = s.client("payments", s.clients.payments, 64<<10); err != nil {
		return r, err
	}
	a := analysis.NewClient(r.analysis)
	pay := payments.New(r.payments)
	handlers.Refund(s.bus, r.payments.Breaker(), refund(pay))
	r.processor = document.NewProcessor(s.store, map[document.Step]document.StepFunc{
		document.Extract: a.Extract, document.Classify: a.Classify, document.Summarise: a.Summarise,
		document.Charge: charge(pay),
	})
	r.queue, err = queue.New(queue.Config[document.Requested]{
		Transport: s.broker, Name: s.cfg.queueName(), Topics: []string{document.RequestedType},
		Handle: r.process, RetryDelay: s.cfg.retryDelay, Logger: s.log,
		Middleware: []message.HandlerMiddleware{only(s.cfg.name), tracing.Messages(s.tracer, s.cfg.queueName())},
	})
	return r, err
}

// paymentKey is the idempotency key of the payment for a document.
func paymentKey(documentID string) string { return "document-" + documentID }

// charge pays for a document. There is no fallback for money: when the service is not to be
// had, the document waits.
func charge(client *payments.Client) document.StepFunc {
	return func(ctx context.Context, d *document.Document) error {
		p, err := client.Pay(ctx, paymentKey(d.ID), payments.Order{Reference: d.ID, Amount: price, Currency: currency})
		if declined, ok := errors.AsType[*payments.DeclinedError](err); ok {
			return errors.Join(document.ErrRejected, declined)
		}
		d.Results.PaymentID = p.ID
		return err
	}
}

// refund is the compensation of charge, for a document that has failed: when its charge got no
// answer, it may have been paid all the same, or may yet be.
func refund(client *payments.Client) func(context.Context, string) error {
	return func(ctx context.Context, documentID string) error {
		p, err := client.Cancel(ctx, paymentKey(documentID))
		switch {
		case errors.Is(err, payments.ErrNotFound):
			return nil // and now it never is
		case err != nil || p.State == payments.Refunded:
			return err
		}
		_, err = client.Refund(ctx, paymentKey(documentID)+"-refund", p.ID)
		return err
	}
}

// process takes a document through its steps, and says what becomes of its message.
func (r *workerRole) process(ctx context.Context, d queue.Delivery[document.Requested]) queue.Settlement {
	// region settle
	err := r.processor.Process(ctx, d.Body.DocumentID)
	call, isCall := errors.AsType[*httpclient.Error](err)
	switch {
	case err == nil:
		return queue.Complete()
	case errors.Is(err, document.ErrNotFound):
		return queue.DeadLetter("unknown_document", err.Error())
	case !isStep(err): // the database is away, or another worker has the document
		return queue.Return(err)
	case isCall && call.Tries == 0: // the circuit is open: the service was not asked
		return queue.Return(err)
	case d.Last && ctx.Err() == nil:
		// Its owner is told before the message is put aside: a crash in between is followed
		// by another delivery, which finds the document failed.
		if err := r.processor.GiveUp(ctx, d.Body.DocumentID, "it could not be processed: "+err.Error()); err != nil {
			return queue.Return(err)
		}
	}
	if isCall {
		return queue.AbandonFor(call.RetryAfter, err) // it has said so, or its circuit has opened
	}
	return queue.Abandon(err)
	// endregion
}

// isStep reports whether a step has failed, and not what is around it.
func isStep(err error) bool {
	_, ok := errors.AsType[*document.StepError](err)
	return ok
}

func (r *workerRole) start(ctx context.Context, s *service) error {
	if err := r.queue.Start(ctx); err != nil {
		return err
	}
	s.goes(r.queue.Wait)
	return nil
}

// stop lets documents finish their step until soft ends, and then interrupts them: others go
// on with them. That takes no longer than hard.
func (r *workerRole) stop(soft, hard context.Context) error {
	if r.queue.Stop(soft) == nil {
		return nil
	}
	return r.queue.Stop(hard)
}

// Close lets go of what the worker keeps.
func (r *workerRole) Close() error {
	if r.ib == nil {
		return nil
	}
	return r.ib.Close()
}
