package main

import (
	"context"
	"encoding/json"
	"errors"

	amqp "github.com/rabbitmq/amqp091-go"
)

// raw is the AMQP client alone, with the library's message.
type raw struct {
	site
	work  *amqp.Connection // what is measured has a connection of its own
	ch    *amqp.Channel
	model wire
}

func openRaw(ctx context.Context, broker string) (*raw, error) {
	model, err := wireMessage(ctx, broker)
	if err != nil {
		return nil, err
	}
	s, err := newSite(broker)
	if err != nil {
		return nil, err
	}
	r := &raw{site: s, model: model}
	if err := r.open(broker); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return r, nil
}

func (r *raw) open(broker string) (err error) {
	if err := r.declare(); err != nil {
		return err
	}
	if r.work, err = amqp.Dial(broker); err != nil {
		return err
	}
	r.ch, err = confirming(r.work)
	return err
}

func (r *raw) close() error { return errors.Join(r.work.Close(), r.site.close()) }

// publish sends a batch and waits for all of its confirms.
func (r *raw) publish(ctx context.Context, batch []purchase) error {
	confirms := make([]*amqp.DeferredConfirmation, len(batch))
	for i, e := range batch {
		data, err := json.Marshal(e)
		if err != nil {
			return err
		}
		confirms[i], err = r.ch.PublishWithDeferredConfirmWithContext(ctx, r.name, purchaseType, true, false, r.model.carrying(data))
		if err != nil {
			return err
		}
	}
	for _, c := range confirms {
		if err := awaitConfirm(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func prepareRawPublish(ctx context.Context, broker string, p publishing, l *ledger) (rig, error) {
	r, err := openRaw(ctx, broker)
	if err != nil {
		return rig{}, err
	}
	return rig{
		run:   func(ctx context.Context) error { return l.publishBatches(ctx, p, r.publish) },
		close: r.close,
	}, nil
}

func prepareRawWindow(ctx context.Context, broker string, _ publishing, l *ledger) (rig, error) {
	r, err := openRaw(ctx, broker)
	if err != nil {
		return rig{}, err
	}
	return rig{
		run: func(ctx context.Context) error {
			return publishWindow(ctx, r.ch, r.name, purchaseType, l, r.model.carrying, l.handled)
		},
		close: r.close,
	}, nil
}

// prepareRawConsume handles deliveries in one goroutine where the handler returns at
// once, which is the fastest, and in as many as there are handlers else.
func prepareRawConsume(ctx context.Context, broker string, h handling, l *ledger) (rig, error) {
	r, err := openRaw(ctx, broker)
	if err != nil {
		return rig{}, err
	}
	if err := r.fill(ctx, purchaseType, l, r.model.carrying); err != nil {
		return rig{}, errors.Join(err, r.close())
	}
	if err := r.ch.Qos(h.prefetch, 0, false); err != nil {
		return rig{}, errors.Join(err, r.close())
	}
	handle := decoding(h.handler(l))
	w := newWorkers(1)
	if h.takes > 0 {
		w = newWorkers(h.concurrency)
	}
	const consumer = "raw"
	return rig{
		run: func(ctx context.Context) error {
			deliveries, err := r.ch.Consume(r.name, consumer, false, false, false, false, nil)
			if err != nil {
				return err
			}
			w.start(func() error {
				for d := range deliveries {
					if err := handle(ctx, d.Body); err != nil {
						return err
					}
					if err := d.Ack(false); err != nil {
						return err
					}
				}
				return nil
			})
			return nil
		},
		close: func() error { return errors.Join(r.ch.Cancel(consumer, false), w.wait(), r.close()) },
	}, nil
}
