package main

import (
	"context"
	"net/http"

	"github.com/gotidings/tidings/examples/documents/internal/monitor"
	"github.com/gotidings/tidings/health"
	"github.com/gotidings/tidings/transports"
)

// openMonitor makes what looks after the dependencies. The process is ready without the
// services: there are fallbacks for the one, and documents wait for the other.
func (s *service) openMonitor() (*monitor.Monitor, error) {
	checks := []monitor.Check{
		{Name: "database", Func: s.db.PingContext},
		{Name: "broker", Func: func(ctx context.Context) error {
			if p, ok := s.broker.(transports.Pinger); ok {
				return p.Ping(ctx)
			}
			return nil
		}},
	}
	for name, balancer := range s.clients.balancers() {
		check := monitor.HTTP(name, &http.Client{Transport: balancer}, serviceURL(name)+"/healthz")
		check.Optional = true
		checks = append(checks, check)
	}
	return monitor.New(monitor.Config{Checks: checks, Interval: s.cfg.monitorInterval, Timeout: health.DefaultTimeout, Logger: s.log})
}

// watch starts the monitor, which stopWatch ends.
func (s *service) watch(ctx context.Context) {
	ctx, s.stopWatch = context.WithCancel(context.WithoutCancel(ctx))
	s.running.Go(func() { s.monitor.Run(ctx) })
}

// probe answers /livez and /readyz: with what the monitor knows, and with what can change
// within a moment, the connection to the broker and the subscriptions.
func (s *service) probe(mux *http.ServeMux) error {
	h, err := health.New(health.Config{Logger: s.log, Checks: append(s.monitor.Checks(), health.Transport(s.broker), health.Bus(s.bus))})
	if err != nil {
		return err
	}
	for _, path := range []string{"/livez", "/readyz", "/readyz/"} {
		mux.Handle(path, h)
	}
	return nil
}
