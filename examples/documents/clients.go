package main

import (
	"context"
	"net/http"

	"github.com/gotidings/tidings/examples/documents/internal/discovery"
	"github.com/gotidings/tidings/examples/documents/internal/httpauth"
	"github.com/gotidings/tidings/examples/documents/internal/httpclient"
)

// clients are the ways to the services that documents need.
type clients struct {
	transport          *http.Transport
	analysis, payments *discovery.Balancer // nil when nobody has said where the service is
}

// openClients finds the instances of the services.
func (s *service) openClients(ctx context.Context) (c *clients, err error) {
	c = &clients{transport: &http.Transport{}}
	if c.analysis, err = s.openBalancer(ctx, c, s.cfg.analysis); err == nil {
		c.payments, err = s.openBalancer(ctx, c, s.cfg.payments)
	}
	return c, err
}

func (s *service) openBalancer(ctx context.Context, c *clients, where string) (*discovery.Balancer, error) {
	var resolver discovery.Resolver
	switch {
	case where != "":
		var err error
		if resolver, err = discovery.Parse(where); err != nil {
			return nil, err
		}
	case s.services != nil:
		resolver = discovery.Static(s.services.addresses()...)
	default:
		return nil, nil
	}
	return discovery.Open(ctx, discovery.Config{Resolver: resolver, SkipFor: s.cfg.breakerDelay, Transport: c.transport, Logger: s.log})
}

// balancers are the ways to the services, by name.
func (c *clients) balancers() map[string]*discovery.Balancer {
	all := make(map[string]*discovery.Balancer)
	for name, b := range map[string]*discovery.Balancer{"analysis": c.analysis, "payments": c.payments} {
		if b != nil {
			all[name] = b
		}
	}
	return all
}

// serviceURL is the base URL of a service. Its host is the name of the service, in place of
// which the balancer puts that of an instance.
func serviceURL(name string) string { return "http://" + name + "/" + name }

// client makes the resilient client of a service, whose answers have so many bytes at most.
func (s *service) client(name string, b *discovery.Balancer, maxResponse int64) (*httpclient.Client, error) {
	return httpclient.New(httpclient.Config{
		Name: name, BaseURL: serviceURL(name), Transport: b, Auth: httpauth.HMAC(keyID, []byte(s.cfg.key)),
		RetryDelay: s.cfg.retryDelay, TryTimeout: s.cfg.tryTimeout, Timeout: 3 * s.cfg.tryTimeout, BreakerDelay: s.cfg.breakerDelay,
		MaxResponseBytes: maxResponse, TracerProvider: s.tracer, Logger: s.log,
	})
}

// Close ends the search for instances.
func (c *clients) Close() error {
	for _, b := range c.balancers() {
		_ = b.Close() // it has no error
	}
	c.transport.CloseIdleConnections()
	return nil
}
