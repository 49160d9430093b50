package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/transports"
)

// patience is how long the workers may do nothing before the load gives up. It is longer
// than most delays of redeliveries.
const patience = time.Minute

// load is a run of -load: it puts orders through a shop and finds out what became of them.
type load struct {
	cfg     config
	run     string // begins the e-mail addresses of the customers; no other run has it
	service *service
	clients *clients
	out     *progress
}

// runLoad runs a shop, puts orders through it over HTTP, and reconciles. The error says
// why that could not be finished, or what is wrong.
func runLoad(ctx context.Context, cfg config, stdout, stderr io.Writer) (err error) {
	id := make([]byte, 4)
	_, _ = rand.Read(id) // never fails
	l := &load{cfg: cfg, run: "load-" + hex.EncodeToString(id), out: newProgress(stdout)}
	l.cfg.addr = "127.0.0.1:0" // a free port
	if cfg.name == "" {        // a shop that is there for this run only
		l.cfg.name, l.cfg.relayFrom = l.run, outbox.FromNow
	}
	if cfg.db == "" {
		dir, err := os.MkdirTemp("", "shop-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }() // it is in the folder for what is temporary
		l.cfg.db = "sqlite:" + filepath.ToSlash(filepath.Join(dir, "shop.db"))
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelError})) // e-mails fail on purpose
	if l.service, err = openService(ctx, l.cfg, log); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.service.close()) }()

	err = l.work(ctx)
	// With the workers at rest nothing changes any more: a copy that comes late counts too.
	err = errors.Join(err, l.service.stop())
	sum, reconcileErr := l.reconcile(context.WithoutCancel(ctx))
	if reconcileErr != nil {
		return errors.Join(err, reconcileErr)
	}
	if cfg.name == "" {
		err = errors.Join(err, l.service.remove())
	}
	if sum.lost > 0 || sum.doubled > 0 {
		err = errors.Join(err, fmt.Errorf("%d orders or promotions were lost and %d doubled", sum.lost, sum.doubled))
	}
	l.out.print("customers promoted and greeted: %d of %d\n%v\n", sum.greeted, sum.vips, sum)
	return err
}

// work places the orders, and returns when the workers have done their part.
func (l *load) work(ctx context.Context) error {
	if err := l.service.start(ctx); err != nil {
		return err
	}
	l.clients = newClients("http://"+l.service.listener.Addr().String(), l.run)
	defer l.clients.close()
	l.out.print("%d orders for %s, database %s, transport %s\n", l.cfg.load, l.clients.base,
		scheme(l.cfg.db), cmp.Or(scheme(l.cfg.transport), "the database"))

	began := time.Now()
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		l.out.show(watching, l)
	}()
	err := l.clients.place(ctx, l.cfg.load)
	placed := time.Since(began)
	if err == nil || ctx.Err() != nil { // after an interrupt, what was placed is done to the end
		err = errors.Join(err, l.wait(context.WithoutCancel(ctx)))
	}
	stop()
	<-shown
	l.out.print("placed in %v, all done after %v\n", placed.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	return err
}

// wait returns when everything has been done for the orders, or nothing happens any more.
func (l *load) wait(ctx context.Context) error {
	var last tally
	changed := time.Now()
	for {
		asked := time.Now()
		sum, err := l.reconcile(ctx)
		switch {
		case err != nil:
			return err
		case sum.lost == 0:
			return nil
		case sum != last:
			last, changed = sum, time.Now()
		case time.Since(changed) > patience:
			return fmt.Errorf("nothing has happened for %v", patience)
		}
		select {
		case <-time.After(max(50*time.Millisecond, 5*time.Since(asked))): // the answer takes longer the more orders there are
		case err := <-l.service.failed:
			return fmt.Errorf("something has ended by itself: %w", err)
		}
	}
}

// scheme is what can be shown of a URL.
func scheme(rawURL string) string {
	for i, c := range rawURL {
		if c == ':' {
			return rawURL[:i]
		}
	}
	return rawURL
}

// remove deletes the shop's subscriptions, so that nothing waits for a shop that never
// comes back.
func (s *service) remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	var errs []error
	if s.bus != nil {
		for _, name := range s.bus.Subscriptions() {
			errs = append(errs, s.bus.RemoveSubscription(ctx, name))
		}
	}
	if s.relay != nil {
		errs = append(errs, s.ob.Transport().RemoveSubscription(ctx, s.relay.Subscription()))
	}
	err := errors.Join(errs...)
	if errors.Is(err, transports.ErrUnsupported) {
		return nil
	}
	return err
}
