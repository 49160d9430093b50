package httpclient

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/url"

	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
)

// Client calls one service. Its methods may be called concurrently.
type Client struct {
	cfg     Config
	base    *url.URL
	breaker circuitbreaker.CircuitBreaker[any]
	once    http.RoundTripper // for calls that can't be repeated
	retried http.RoundTripper // for those that can
}

// New makes a client. The error joins all faults of cfg.
func New(cfg Config) (*Client, error) {
	base, err := cfg.validate()
	if err != nil {
		return nil, fmt.Errorf("httpclient: %w", err)
	}
	c := &Client{cfg: cfg.withDefaults(), base: base}
	c.breaker = c.newBreaker()
	limit := bulkhead.NewBuilder[*http.Response](c.cfg.MaxConcurrent).WithMaxWaitTime(c.cfg.MaxWait).Build()
	try := &signer{c.cfg.Auth, &guard{c.breaker, newWire(c.cfg)}}
	c.once = failsafehttp.NewRoundTripper(try, limit)
	c.retried = failsafehttp.NewRoundTripper(try, retryPolicy(c.cfg), limit)
	return c, nil
}

// Name is that of the service.
func (c *Client) Name() string { return c.cfg.Name }

// Breaker is the circuit breaker of the service: its State and Metrics can be shown, and it
// can pause a subscription whose handler uses the client, by bus.ObserveCircuitBreaker.
func (c *Client) Breaker() circuitbreaker.CircuitBreaker[any] { return c.breaker }

func (c *Client) newBreaker() circuitbreaker.CircuitBreaker[any] {
	return circuitbreaker.NewBuilder[any]().
		WithFailureThreshold(c.cfg.BreakerFailures).
		WithSuccessThreshold(1).
		WithDelay(c.cfg.BreakerDelay).
		OnStateChanged(func(e circuitbreaker.StateChangedEvent) {
			c.cfg.Logger.WarnContext(e.Context(), "circuit breaker has changed", slog.String("service", c.cfg.Name),
				slog.String("from", e.OldState.String()), slog.String("to", e.NewState.String()))
			c.cfg.OnBreaker(e.OldState, e.NewState)
		}).Build()
}

// send makes a call, with its retries. The body of the response, if there is one, is in
// memory.
func (c *Client) send(req *http.Request) (*http.Response, error) {
	if repeatable(req) {
		return c.retried.RoundTrip(req)
	}
	return c.once.RoundTrip(req)
}
