package discovery

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Policy says which instance gets a request.
type Policy int

// The policies.
const (
	RoundRobin    Policy = iota // one after the other
	LeastInFlight               // the one with the fewest requests under way
)

// Config configures a [Balancer]. Resolver is required.
type Config struct {
	Resolver Resolver
	Policy   Policy

	// Refresh is how often the resolver is asked; once a second, or more often, while no
	// instance is known. 0 means 30 s.
	Refresh time.Duration

	// SkipFor is how long an instance is passed over that has failed: with a network error,
	// 502, 503 or 504. When all have, they are all used. 0 means 10 s.
	SkipFor time.Duration

	// Transport makes the requests. nil means [http.DefaultTransport].
	Transport http.RoundTripper

	// Logger says when instances come, go and fail. nil means to discard.
	Logger *slog.Logger
}

// Balancer sends requests to the instances of a service: in place of the host of their URL,
// which stays the Host of the request. With https the instances' names have to be in their
// certificates. Its methods may be called concurrently.
type Balancer struct {
	cfg  Config
	stop context.CancelFunc
	done chan struct{}

	mu        sync.Mutex // guards what follows, and what is in the instances
	instances []*instance
	next      uint // counts requests, for taking turns
}

// instance is what is known of one.
type instance struct {
	address  string
	inFlight int
	skipped  time.Time // until when
}

// Open makes a balancer, asks its resolver, and does so again until Close. That the resolver
// has no answer yet is no error.
func Open(ctx context.Context, cfg Config) (*Balancer, error) {
	if cfg.Resolver == nil || cfg.Refresh < 0 || cfg.SkipFor < 0 {
		return nil, errors.New("discovery: there is no Resolver, or Refresh or SkipFor is negative")
	}
	if cfg.Refresh == 0 {
		cfg.Refresh = 30 * time.Second
	}
	if cfg.SkipFor == 0 {
		cfg.SkipFor = 10 * time.Second
	}
	if cfg.Transport == nil {
		cfg.Transport = http.DefaultTransport
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	b := &Balancer{cfg: cfg, done: make(chan struct{})}
	b.refresh(ctx)
	ctx, b.stop = context.WithCancel(context.WithoutCancel(ctx))
	go b.run(ctx)
	return b, nil
}

// Close ends the asking. Requests go on being answered.
func (b *Balancer) Close() error {
	b.stop()
	<-b.done
	return nil
}

func (b *Balancer) run(ctx context.Context) {
	defer close(b.done)
	for {
		wait := b.cfg.Refresh
		if len(b.Instances()) == 0 {
			wait = min(wait, time.Second)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
			b.refresh(ctx)
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// refresh asks the resolver, and keeps what was known if that has no answer.
func (b *Balancer) refresh(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, min(b.cfg.Refresh, 5*time.Second))
	defer cancel()
	addresses, err := b.cfg.Resolver.Resolve(limited)
	if err == nil && len(addresses) == 0 {
		err = ErrNoInstances
	}
	if err != nil {
		if ctx.Err() == nil {
			b.cfg.Logger.WarnContext(ctx, "instances can't be looked up", slog.Any("error", err), slog.Any("kept", b.Instances()))
		}
		return
	}
	b.mu.Lock()
	known := make(map[string]*instance, len(b.instances))
	for _, i := range b.instances {
		known[i.address] = i
	}
	before := b.instances
	b.instances = make([]*instance, len(addresses))
	for n, address := range addresses {
		if b.instances[n] = known[address]; b.instances[n] == nil {
			b.instances[n] = &instance{address: address}
		}
	}
	changed := !slices.Equal(before, b.instances)
	b.mu.Unlock()
	if changed {
		b.cfg.Logger.InfoContext(ctx, "instances have changed", slog.Any("instances", addresses))
	}
}

// Instances returns the addresses that are known.
func (b *Balancer) Instances() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	addresses := make([]string, len(b.instances))
	for n, i := range b.instances {
		addresses[n] = i.address
	}
	return addresses
}

// RoundTrip sends a request to an instance. The error is [ErrNoInstances] when none is known.
func (b *Balancer) RoundTrip(req *http.Request) (*http.Response, error) {
	i := b.take()
	if i == nil {
		if req.Body != nil {
			_ = req.Body.Close() // a RoundTripper has to, whatever happens
		}
		return nil, ErrNoInstances
	}
	out := req.Clone(req.Context())
	if out.Host == "" {
		out.Host = req.URL.Host
	}
	out.URL.Host = i.address
	res, err := b.cfg.Transport.RoundTrip(out)
	b.note(req.Context(), i, res, err)
	if err != nil {
		b.giveBack(i)
		return nil, err
	}
	res.Body = &body{ReadCloser: res.Body, closed: sync.OnceFunc(func() { b.giveBack(i) })}
	return res, nil
}

// take chooses an instance: of those that are not skipped, or of all, and by turns where
// nothing else decides.
func (b *Balancer) take() *instance {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	usable := make([]*instance, 0, len(b.instances))
	for _, i := range b.instances {
		if !now.Before(i.skipped) {
			usable = append(usable, i)
		}
	}
	if len(usable) == 0 {
		usable = b.instances
	}
	if len(usable) == 0 {
		return nil
	}
	first := b.next % uint(len(usable))
	b.next++
	chosen := usable[first]
	if b.cfg.Policy == LeastInFlight {
		for _, i := range slices.Concat(usable[first:], usable[:first]) {
			if i.inFlight < chosen.inFlight {
				chosen = i
			}
		}
	}
	chosen.inFlight++
	return chosen
}

func (b *Balancer) giveBack(i *instance) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i.inFlight--
}

// note remembers whether an instance has failed. A caller who has gone has not seen it.
func (b *Balancer) note(ctx context.Context, i *instance, res *http.Response, err error) {
	failed := err != nil && !errors.Is(ctx.Err(), context.Canceled)
	if err == nil {
		switch res.StatusCode {
		case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			failed = true
		}
	}
	if !failed {
		return
	}
	b.mu.Lock()
	i.skipped = time.Now().Add(b.cfg.SkipFor)
	b.mu.Unlock()
	b.cfg.Logger.WarnContext(ctx, "instance is passed over", slog.String("instance", i.address), slog.Duration("for", b.cfg.SkipFor))
}

// body tells when it is closed: then the request is over.
type body struct {
	io.ReadCloser
	closed func()
}

func (b *body) Close() error {
	defer b.closed()
	return b.ReadCloser.Close()
}
