package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/gotidings/tidings/examples/documents/internal/analysis"
	"github.com/gotidings/tidings/examples/documents/internal/document"
	"github.com/gotidings/tidings/examples/documents/internal/handlers"
	"github.com/gotidings/tidings/examples/documents/internal/httpauth"
	"github.com/gotidings/tidings/examples/documents/internal/httpclient"
	"github.com/gotidings/tidings/examples/documents/internal/payments"
	"github.com/gotidings/tidings/examples/documents/internal/tracing"
	"github.com/gotidings/tidings/inbox"
	"github.com/gotidings/tidings/transports"
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
	http      *http.Transport
	cancel    context.CancelFunc
}

func (s *service) openWorker(ctx context.Context) (r *workerRole, err error) {
	r = &workerRole{http: &http.Transport{}}
	if r.ib, err = inbox.New(ctx, inbox.Config{DB: s.db, Prefix: tablePrefix, Logger: s.log}); err != nil {
		return r, err
	}
	handlers.Notify(s.bus, s.store, s.log)
	handlers.Count(s.bus, r.ib)
	if r.analysis, err = s.client(r, "analysis", "/analysis"); err != nil {
		return r, err
	}
	if r.payments, err = s.client(r, "payments", "/payments"); err != nil {
		return r, err
	}
	a := analysis.NewClient(r.analysis)
	r.processor = document.NewProcessor(s.store, map[document.Step]document.StepFunc{
		document.Extract: a.Extract, document.Classify: a.Classify, document.Summarise: a.Summarise,
		document.Charge: charge(payments.New(r.payments)),
	})
	return r, nil
}

func (s *service) client(r *workerRole, name, path string) (*httpclient.Client, error) {
	return httpclient.New(httpclient.Config{
		Name: name, BaseURL: s.services.addresses()[0] + path, Transport: r.http,
		Auth:       httpauth.HMAC(keyID, []byte(s.cfg.key)),
		RetryDelay: s.cfg.retryDelay, BreakerDelay: s.cfg.breakerDelay, TracerProvider: s.tracer, Logger: s.log,
	})
}

// charge pays for a document. There is no fallback for money: when the service is not to be
// had, the document waits.
func charge(client *payments.Client) document.StepFunc {
	return func(ctx context.Context, d *document.Document) error {
		p, err := client.Pay(ctx, "document-"+d.ID, payments.Order{Reference: d.ID, Amount: price, Currency: currency})
		if declined, ok := errors.AsType[*payments.DeclinedError](err); ok {
			return errors.Join(document.ErrRejected, declined)
		}
		d.Results.PaymentID = p.ID
		return err
	}
}

func (r *workerRole) start(ctx context.Context, s *service) error {
	sctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.cancel = cancel
	ch, err := s.broker.Subscribe(sctx, transports.Subscription{Name: s.cfg.name + ".process", Topics: []string{document.RequestedType}, Concurrency: 4})
	if err != nil {
		return err
	}
	for range 4 {
		s.running.Go(func() {
			for msg := range ch {
				var e document.Requested
				_ = json.Unmarshal(msg.Payload, &e)
				err := tracing.Message(msg.Context(), s.tracer, "process", msg.Metadata, func(ctx context.Context) error { return r.processor.Process(ctx, e.DocumentID) })
				if err != nil {
					s.log.Error("process", "error", err)
					msg.Nack()
				} else {
					msg.Ack()
				}
			}
		})
	}
	return nil
}

func (r *workerRole) stop(ctx context.Context) error { r.cancel(); return nil }

// Close lets go of what the worker keeps.
func (r *workerRole) Close() error {
	r.http.CloseIdleConnections()
	if r.ib == nil {
		return nil
	}
	return r.ib.Close()
}
