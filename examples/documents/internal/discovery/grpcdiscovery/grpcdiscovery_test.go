package grpcdiscovery_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/gotidings/tidings/examples/documents/internal/discovery"
	"github.com/gotidings/tidings/examples/documents/internal/discovery/grpcdiscovery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a server and returns its address.
func serve(t *testing.T) (address string, stop func()) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	var served sync.WaitGroup
	served.Go(func() {
		if err := s.Serve(l); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), func() {
		s.Stop()
		served.Wait()
	}
}

// instances are what a resolver answers, and can be changed.
type instances struct {
	mu        sync.Mutex
	addresses []string
}

func (i *instances) set(addresses ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.addresses = addresses
}

func (i *instances) Resolve(context.Context) ([]string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.addresses) == 0 {
		return nil, discovery.ErrNoInstances
	}
	return i.addresses, nil
}

func TestBalancesAndFollows(t *testing.T) {
	t.Parallel()
	a, stopA := serve(t)
	b, stopB := serve(t)
	defer stopB()
	var known instances
	known.set(a, b)
	conn, err := grpc.NewClient("discovery:///documents",
		grpc.WithResolvers(grpcdiscovery.NewBuilder(&known, time.Hour)),
		grpc.WithDefaultServiceConfig(grpcdiscovery.RoundRobin),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // there is none
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client := healthpb.NewHealthClient(conn)
	// call returns who has answered.
	call := func() string {
		t.Helper()
		var p peer.Peer
		_, err := client.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true), grpc.Peer(&p))
		switch {
		case ctx.Err() != nil:
			t.Fatal(err)
		case err != nil: // the server has ended under it
			return ""
		}
		return p.Addr.String()
	}
	seen := make(map[string]bool)
	for len(seen) < 2 { // as soon as both connections are there
		if address := call(); address != "" {
			seen[address] = true
		}
	}
	c, stopC := serve(t)
	defer stopC()
	known.set(b, c)
	stopA() // gRPC asks again, before the hour is over
	for {
		if call() == c {
			return
		}
	}
}

// Without an answer, what was known is kept.
func TestKeepsTheLastAnswer(t *testing.T) {
	t.Parallel()
	a, stop := serve(t)
	defer stop()
	asked := make(chan struct{}, 10)
	first := true
	r := discovery.Func(func(context.Context) ([]string, error) {
		asked <- struct{}{}
		if first {
			first = false
			return []string{a}, nil
		}
		return nil, discovery.ErrNoInstances
	})
	conn, err := grpc.NewClient("discovery:///documents", grpc.WithResolvers(grpcdiscovery.NewBuilder(r, time.Second)),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // there is none
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for range 3 {
		if _, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-asked:
		case <-ctx.Done():
			t.Fatal("the resolver is not asked")
		}
	}
}
