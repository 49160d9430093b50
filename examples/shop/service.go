package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/inbox"
	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/transports"
)

// tablePrefix begins the names of the tables of the outbox and the inbox.
const tablePrefix = "shop_"

// service is a process of the shop, in any of its roles.
type service struct {
	cfg config
	log *slog.Logger

	db     *database
	ob     *outbox.Outbox
	ib     *inbox.Inbox         // nil without the role worker
	broker transports.Transport // the outbox's own without -transport
	bus    *bus.Bus             // nil without the role worker
	relay  *outbox.Relay        // nil without the role relay, and when there is nothing to relay to

	listener net.Listener
	server   *http.Server

	stopRelay context.CancelFunc
	failed    chan error // what has ended by itself, and why
	running   sync.WaitGroup
}

// openService connects a service to its database and its broker, with nothing running yet.
func openService(ctx context.Context, cfg config, log *slog.Logger) (s *service, err error) {
	s = &service{cfg: cfg, log: log, failed: make(chan error, 3), stopRelay: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.db, err = openDatabase(ctx, cfg.db); err != nil {
		return s, err
	}
	s.ob, err = outbox.New(ctx, outbox.Config{DB: s.db.DB, Dialect: s.db.dialect, Prefix: tablePrefix, Source: cfg.name, Logger: log})
	if err != nil {
		return s, err
	}
	s.broker = s.ob.Transport()
	if cfg.transport != "" {
		if s.broker, err = transports.Open(ctx, cfg.transport, transports.WithLogger(log)); err != nil {
			return s, err
		}
	}
	if cfg.has(roleRelay) && cfg.transport != "" {
		s.relay, err = outbox.NewRelay(s.ob, outbox.RelayConfig{Name: cfg.name, To: s.broker, Start: cfg.relayFrom})
		if err != nil {
			return s, err
		}
	}
	if cfg.has(roleWorker) {
		if s.ib, err = inbox.New(ctx, inbox.Config{DB: s.db.DB, Dialect: s.db.dialect, Prefix: tablePrefix, Logger: log}); err != nil {
			return s, err
		}
		w := &worker{db: s.db, ob: s.ob, mail: &mailer{db: s.db, failures: cfg.mailFailures}, vipAfter: cfg.vipAfter}
		if s.bus, err = newBus(s.broker, cfg, w, s.ib, log); err != nil {
			return s, err
		}
	}
	return s, nil
}

// start makes the service run. Subscriptions exist before there is anything that could
// publish: a new subscription gets what comes after it.
func (s *service) start(ctx context.Context) (err error) {
	if s.bus != nil {
		if err := s.bus.Start(ctx); err != nil {
			return err
		}
		s.running.Go(func() { s.failed <- s.bus.Wait() })
	}
	if s.relay != nil {
		if err := s.relay.Declare(ctx); err != nil {
			return err
		}
		var relaying context.Context
		relaying, s.stopRelay = context.WithCancel(context.WithoutCancel(ctx))
		s.running.Go(func() { s.failed <- s.relay.Run(relaying) })
	}
	handler, err := s.handler()
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	if s.listener, err = lc.Listen(ctx, "tcp", s.cfg.addr); err != nil {
		return err
	}
	s.server = &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	s.running.Go(func() {
		if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	})
	return nil
}

// stop ends what runs, in the order in which the work flows: no more requests, no more
// deliveries, and what was published meanwhile is relayed as far as it goes; the rest is
// in the database.
func (s *service) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.shutdownTimeout+10*time.Second)
	defer cancel()
	var errs []error
	if s.server != nil {
		errs = append(errs, s.server.Shutdown(ctx))
	}
	if s.bus != nil {
		errs = append(errs, s.bus.Shutdown(ctx))
	}
	s.stopRelay()
	s.running.Wait()
	return errors.Join(errs...)
}

// close lets go of the broker and the database, after stop.
func (s *service) close() error {
	var errs []error
	if s.broker != nil && s.cfg.transport != "" {
		errs = append(errs, s.broker.Close())
	}
	if s.ib != nil {
		errs = append(errs, s.ib.Close())
	}
	if s.ob != nil {
		errs = append(errs, s.ob.Close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	return errors.Join(errs...)
}

// serve runs the service until ctx ends, or something fails.
func serve(ctx context.Context, cfg config, log *slog.Logger) error {
	s, err := openService(ctx, cfg, log)
	if err != nil {
		return err
	}
	if err = s.start(ctx); err == nil {
		log.Info("the shop is open", "name", cfg.name, "roles", cfg.roles, "address", "http://"+s.listener.Addr().String())
		select {
		case <-ctx.Done():
			log.Info("the shop closes")
		case err = <-s.failed:
			err = fmt.Errorf("something has ended by itself: %w", err)
		}
	}
	return errors.Join(err, s.stop(), s.close())
}
