package main

import (
	"context"
	"net/http"
	"time"

	"github.com/gotidings/tidings/health"
)

// handler is what the process answers: its health in every role, and the API in that one.
func (s *service) handler() (http.Handler, error) {
	mux := http.NewServeMux()
	// region health
	checks := []health.Check{
		{Name: "database", Func: s.db.PingContext},
		health.Transport(s.broker),
	}
	if s.bus != nil {
		checks = append(checks, health.Bus(s.bus))
	}
	if s.relay != nil {
		checks = append(checks, health.Age("outbox", s.cfg.outboxAge, s.oldestEvent))
	}
	h, err := health.New(health.Config{Checks: checks, Logger: s.log})
	if err != nil {
		return nil, err
	}
	mux.Handle("/livez", h)
	mux.Handle("/readyz", h)
	mux.Handle("/readyz/", h)
	// endregion
	if s.cfg.has(roleAPI) {
		a := &api{orders: &orders{db: s.db, ob: s.ob}, log: s.log}
		a.routes(mux)
	}
	return mux, nil
}

// oldestEvent is for how long the oldest event has waited for the relay.
func (s *service) oldestEvent(ctx context.Context) (time.Duration, error) {
	stats, err := s.ob.Stats(ctx)
	for _, destination := range stats {
		if destination.Name == s.cfg.name {
			return destination.Age, err
		}
	}
	return 0, err
}
