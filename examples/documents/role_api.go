package main

import (
	"context"
	"net"
	"net/http"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"

	"github.com/gotidings/tidings/examples/documents/internal/api"
	"github.com/gotidings/tidings/examples/documents/internal/grpcapi"
	"github.com/gotidings/tidings/examples/documents/internal/handlers"
	"github.com/gotidings/tidings/examples/documents/internal/httpauth"
	"github.com/gotidings/tidings/examples/documents/internal/live"
	"github.com/gotidings/tidings/examples/documents/internal/watch"
	"github.com/gotidings/tidings/realtime"
)

// apiRole is what users see: the REST API, the live page and the gRPC service.
type apiRole struct {
	hub          *realtime.Hub
	grpc         *grpc.Server
	grpcHealth   *grpchealth.Server
	grpcListener net.Listener
}

// openAPI makes the role, and adds to mux what it answers over HTTP.
func (s *service) openAPI(ctx context.Context, mux *http.ServeMux) (r *apiRole, err error) {
	r = &apiRole{}
	tokens := httpauth.NewTokens(s.cfg.tokens)
	if r.hub, err = live.NewHub(s.bus, tokens, s.store, s.log); err != nil {
		return r, err
	}
	watcher := watch.New(s.bus, s.store)

	rest := api.New(api.Config{
		Store: s.store, History: s.history, Tokens: tokens, Dependencies: s.monitor.Snapshot, Tracer: s.tracer, Logger: s.log,
		Statistics: func(ctx context.Context, owner string) (map[string]int, error) {
			return handlers.Statistics(ctx, s.db, owner)
		},
	})
	mux.Handle("/", live.Page())
	mux.Handle("/live/", r.hub)
	for _, path := range []string{"/documents", "/documents/", "/statistics", "/dependencies", "/me"} {
		mux.Handle(path, rest)
	}

	r.grpc, r.grpcHealth = grpcapi.NewServer(grpcapi.Config{Store: s.store, Watcher: watcher, Tokens: tokens, Tracer: s.tracer, Logger: s.log})
	var lc net.ListenConfig
	r.grpcListener, err = lc.Listen(ctx, "tcp", s.cfg.grpcAddr)
	return r, err
}

func (r *apiRole) start(s *service) {
	s.goes(func() error { return r.grpc.Serve(r.grpcListener) })
}

// stop tells clients to go elsewhere, and waits for their calls. Those that are left when ctx
// ends, such as a stream that its client holds open, are cut off.
func (r *apiRole) stop(ctx context.Context) {
	r.grpcHealth.Shutdown()
	_ = r.hub.Close(ctx)                        // the error says that it has cut connections
	defer context.AfterFunc(ctx, r.grpc.Stop)() // ends GracefulStop
	r.grpc.GracefulStop()
}

// Close lets go of the address, if it was never started.
func (r *apiRole) Close() error {
	if r.grpcListener != nil {
		_ = r.grpcListener.Close() // it was closed by the server, or is not needed
	}
	return nil
}
