// Package grpcdiscovery makes a gRPC client find the instances of a service by package
// discovery. gRPC balances between them, and passes over those to which it has no
// connection:
//
//	conn, err := grpc.NewClient("discovery:///documents",
//		grpc.WithResolvers(grpcdiscovery.NewBuilder(r, 30*time.Second)),
//		grpc.WithDefaultServiceConfig(grpcdiscovery.RoundRobin), …)
package grpcdiscovery

import (
	"context"
	"time"

	"google.golang.org/grpc/resolver"

	"github.com/gotidings/tidings/examples/documents/internal/discovery"
)

// RoundRobin is the service config that takes the instances in turn; gRPC's own takes the
// first one that answers.
const RoundRobin = `{"loadBalancingConfig": [{"round_robin": {}}]}`

// minInterval bounds how often a resolver is asked when connections fail.
const minInterval = time.Second

// NewBuilder makes the resolver of targets with the scheme "discovery". It asks r once in an
// interval, and when a connection has failed.
func NewBuilder(r discovery.Resolver, interval time.Duration) resolver.Builder {
	return &builder{r, interval}
}

type builder struct {
	resolver discovery.Resolver
	interval time.Duration
}

func (*builder) Scheme() string { return "discovery" }

// Build starts the asking, until the connection closes the resolver.
func (b *builder) Build(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	ctx, stop := context.WithCancel(context.Background())
	w := &watcher{builder: *b, cc: cc, stop: stop, now: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run(ctx)
	return w, nil
}

// watcher asks for one connection.
type watcher struct {
	builder
	cc   resolver.ClientConn
	stop context.CancelFunc
	now  chan struct{}
	done chan struct{}
}

func (w *watcher) run(ctx context.Context) {
	defer close(w.done)
	for ctx.Err() == nil {
		w.refresh(ctx)
		pause(ctx, minInterval, nil)
		pause(ctx, w.interval-minInterval, w.now)
	}
}

func (w *watcher) refresh(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	addresses, err := w.resolver.Resolve(limited)
	if err != nil {
		w.cc.ReportError(err) // which keeps what was known
		return
	}
	state := resolver.State{}
	for _, address := range addresses {
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: address}}})
	}
	_ = w.cc.UpdateState(state) // its error asks for another answer, which comes anyway
}

// pause waits for d, until ctx ends, or until it is woken.
func pause(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-wake:
	case <-ctx.Done():
	}
}

// ResolveNow asks soon. gRPC calls it when a connection has failed.
func (w *watcher) ResolveNow(resolver.ResolveNowOptions) {
	select {
	case w.now <- struct{}{}:
	default: // it was asked to already
	}
}

// Close ends the asking.
func (w *watcher) Close() {
	w.stop()
	<-w.done
}
