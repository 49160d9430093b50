package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/trace"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/eventstore"
	"github.com/gotidings/tidings/examples/documents/internal/database"
	"github.com/gotidings/tidings/examples/documents/internal/document"
	"github.com/gotidings/tidings/examples/documents/internal/handlers"
	"github.com/gotidings/tidings/examples/documents/internal/monitor"
	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/telemetry"
	"github.com/gotidings/tidings/transports"
)

// removeTimeout is how long the broker may take to forget the system.
const removeTimeout = 3 * time.Second

// tablePrefix begins the names of the tables of the outbox and the inbox.
const tablePrefix = "documents_"

// service is a process of the system, in any of its roles. What all of them have is here;
// each role adds its own.
type service struct {
	cfg    config
	log    *slog.Logger
	tracer trace.TracerProvider

	temporary string // folder; "" is none
	db        *sql.DB
	ob        *outbox.Outbox
	broker    transports.Transport // the outbox's own without -transport
	relay     *outbox.Relay        // nil without -transport
	store     *document.Store
	history   *eventstore.Store
	bus       *bus.Bus

	services *servicesRole // nil without it, as the others
	worker   *workerRole
	api      *apiRole

	server    *server // of every role but services alone
	telemetry *telemetry.Telemetry
	monitor   *monitor.Monitor
	clients   *clients           // to the services
	stopRelay context.CancelFunc // never nil, as the next one
	stopWatch context.CancelFunc
	failed    chan error // what has ended by itself, and why
	running   sync.WaitGroup
}

// openService connects a service to its database and its broker, with nothing running yet.
func openService(ctx context.Context, cfg config, tracer trace.TracerProvider, log *slog.Logger) (s *service, err error) {
	s = &service{cfg: cfg, log: log, tracer: tracer, failed: make(chan error, 8), stopRelay: func() {}, stopWatch: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if cfg.has(roleServices) {
		if s.services, err = openServices(ctx, cfg, log); err != nil {
			return s, err
		}
	}
	if !cfg.has(roleAPI) && !cfg.has(roleWorker) {
		return s, nil // what the services keep is their own
	}
	if s.telemetry, err = telemetry.New(telemetry.Config{TracerProvider: tracer}); err != nil {
		return s, err
	}
	if err := s.openDatabase(ctx); err != nil {
		return s, err
	}
	if err := s.openBroker(ctx); err != nil {
		return s, err
	}
	if s.clients, err = s.openClients(ctx); err != nil {
		return s, err
	}
	if s.monitor, err = s.openMonitor(); err != nil {
		return s, err
	}
	if cfg.has(roleWorker) {
		if s.worker, err = s.openWorker(ctx); err != nil {
			return s, err
		}
	}
	mux := http.NewServeMux()
	if cfg.has(roleAPI) {
		if s.api, err = s.openAPI(ctx, mux); err != nil {
			return s, err
		}
	}
	if err := s.probe(mux); err != nil {
		return s, err
	}
	s.server, err = listen(ctx, cfg.addr, mux, log)
	return s, err
}

// openDatabase opens the database with what is kept there: documents, and the log that is
// the outbox and the event store at once.
func (s *service) openDatabase(ctx context.Context) (err error) {
	address := s.cfg.db
	if address == "" {
		if s.temporary, err = os.MkdirTemp("", "documents-"); err != nil {
			return err
		}
		address = "sqlite:" + filepath.ToSlash(filepath.Join(s.temporary, "documents.db"))
	}
	db, dialect, err := database.Open(ctx, address, slices.Concat(document.Schema, handlers.Schema)...)
	if err != nil {
		return err
	}
	s.db = db
	s.ob, err = outbox.New(ctx, outbox.Config{
		DB: db, Dialect: dialect, Prefix: tablePrefix, Source: s.cfg.name, PublishMiddleware: []bus.PublishMiddleware{s.telemetry.Outbox()}, Logger: s.log,
	})
	if err != nil {
		return err
	}
	s.store = document.NewStore(db, s.ob)
	s.history, err = eventstore.New(ctx, eventstore.Config{Log: s.ob.Transport(), Index: true})
	return err
}

// openBroker opens the broker, the relay that brings it what the outbox has, and the bus.
func (s *service) openBroker(ctx context.Context) (err error) {
	s.broker = s.ob.Transport()
	if s.cfg.transport != "" {
		if s.broker, err = transports.Open(ctx, s.cfg.transport, transports.WithLogger(s.log)); err != nil {
			return err
		}
		s.relay, err = outbox.NewRelay(s.ob, outbox.RelayConfig{
			Name: s.cfg.name, To: s.broker, Start: s.cfg.relayFrom, PublishMiddleware: []bus.PublishMiddleware{s.telemetry.Relay(s.broker)},
		})
		if err != nil {
			return err
		}
	}
	s.bus, err = bus.New(s.broker, bus.Config{
		Source:          s.cfg.name,
		ShutdownTimeout: s.cfg.shutdownTimeout / 4, // what stop leaves for it
		Middleware:      []message.HandlerMiddleware{only(s.cfg.name)},
		Instrumentation: []bus.Instrumentation{s.telemetry},
		Logger:          s.log,
	})
	return err
}

// only passes over the events of other systems on the same broker.
func only(source string) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			if md, ok := events.MetadataFrom(msg.Context()); ok && md.Source != source {
				return nil, nil
			}
			return h(msg)
		}
	}
}

// start makes the service run. Subscriptions exist before there is anything that could
// publish: a new subscription gets what comes after it.
func (s *service) start(ctx context.Context) error {
	if s.services != nil {
		s.services.start(s)
	}
	if s.bus == nil {
		return nil
	}
	s.watch(ctx)
	if err := s.bus.Start(ctx); err != nil {
		return err
	}
	s.goes(s.bus.Wait)
	if s.worker != nil {
		if err := s.worker.start(ctx, s); err != nil {
			return err
		}
	}
	if s.relay != nil {
		if err := s.relay.Declare(ctx); err != nil {
			return err
		}
		var relaying context.Context
		relaying, s.stopRelay = context.WithCancel(context.WithoutCancel(ctx))
		s.goes(func() error { return s.relay.Run(relaying) })
	}
	if s.api != nil {
		s.api.start(s)
	}
	s.goes(s.server.serve)
	return nil
}

// queueName is the identity of the queue of documents.
func (c *config) queueName() string { return c.name + ".process" }

// subscriptions are those that stay when the system ends.
func (c *config) subscriptions() []string {
	names := []string{c.queueName()}
	for _, handler := range []string{handlers.NotifyName, handlers.CountName, handlers.RefundName} {
		names = append(names, c.name+"."+handler)
	}
	return names
}

// goes runs what should not end by itself.
func (s *service) goes(f func() error) {
	s.running.Go(func() {
		select {
		case s.failed <- f():
		default: // something else has failed before
		}
	})
}

// stop ends what runs, in the order in which the work flows: no more requests, no more
// documents, no more events. What was published meanwhile is relayed as far as it goes; the
// rest is in the database.
//
// Of the time that there is, requests have a quarter, documents what is left of three, and
// handlers one. What does not finish in its time is interrupted, which is no error: it goes
// on elsewhere or later. It is one when something does not end when it is interrupted.
func (s *service) stop() error {
	limit := s.cfg.shutdownTimeout
	hard, cancelHard := context.WithTimeout(context.Background(), limit+max(limit/2, time.Second)) // with what an interruption takes
	defer cancelHard()
	requests, cancelRequests := context.WithTimeout(hard, limit/4)
	defer cancelRequests()
	documents, cancelDocuments := context.WithTimeout(hard, 3*limit/4)
	defer cancelDocuments()
	var errs []error
	if s.api != nil {
		s.api.stop(requests)
	}
	if s.server != nil {
		errs = append(errs, s.server.stop(requests))
	}
	if s.worker != nil {
		errs = append(errs, s.worker.stop(documents, hard))
	}
	if s.bus != nil {
		errs = append(errs, s.bus.Shutdown(hard))
	}
	s.stopRelay()
	s.stopWatch()
	if s.services != nil {
		errs = append(errs, s.services.stop(documents))
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.running.Wait()
	}()
	select {
	case <-ended:
	case <-hard.Done(): // what waits for a broker that is silent ends when that is closed
		errs = append(errs, errors.New("something has not ended"))
	}
	return errors.Join(errs...)
}

// remove deletes the subscriptions of the whole system, after stop, so that nothing waits for
// a system that never comes back.
func (s *service) remove(ctx context.Context) error {
	var errs []error
	if remover, ok := s.broker.(transports.SubscriptionRemover); ok {
		for _, name := range s.cfg.subscriptions() {
			errs = append(errs, remover.RemoveSubscription(ctx, name))
		}
	}
	if s.relay != nil {
		errs = append(errs, s.ob.Transport().RemoveSubscription(ctx, s.relay.Subscription()))
	}
	return errors.Join(errs...)
}

// close lets go of the broker and the database, after stop.
func (s *service) close() error {
	var errs []error
	closeIt := func(c io.Closer) { errs = append(errs, c.Close()) }
	if s.services != nil {
		closeIt(s.services)
	}
	if s.api != nil {
		closeIt(s.api)
	}
	if s.worker != nil {
		closeIt(s.worker)
	}
	if s.server != nil {
		_ = s.server.listener.Close() // it was closed by the server, or is not needed
	}
	if s.history != nil {
		closeIt(s.history)
	}
	if s.broker != nil && s.cfg.transport != "" {
		closeIt(s.broker)
	}
	if s.ob != nil {
		closeIt(s.ob)
	}
	if s.db != nil {
		closeIt(s.db)
	}
	if s.clients != nil {
		closeIt(s.clients)
	}
	if s.telemetry != nil {
		closeIt(s.telemetry)
	}
	if s.temporary != "" {
		errs = append(errs, os.RemoveAll(s.temporary))
	}
	return errors.Join(errs...)
}

// serve runs the service until ctx ends, or something fails.
func serve(ctx context.Context, cfg config, tracer trace.TracerProvider, log *slog.Logger, stdout io.Writer) error {
	files, err := cfg.inputFiles()
	if err != nil {
		return err
	}
	s, err := openService(ctx, cfg, tracer, log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err = s.start(ctx); err == nil {
		s.tell(stdout)
		s.running.Go(func() { s.submitAll(ctx, files) })
		select {
		case <-ctx.Done():
			log.Info("stopping")
		case err = <-s.failed:
			err = fmt.Errorf("something has ended by itself: %w", err)
			cancel() // what is still submitting
		}
	}
	return errors.Join(err, s.stop(), s.close())
}
