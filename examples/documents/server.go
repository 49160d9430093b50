package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// server is an HTTP server at an address that it has already.
type server struct {
	*http.Server

	listener net.Listener
}

func listen(ctx context.Context, address string, handler http.Handler, log *slog.Logger) (*server, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &server{&http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}, listener}, nil
}

// stop waits for requests. Those that are left when ctx ends are cut off.
func (s *server) stop(ctx context.Context) error {
	if err := s.Shutdown(ctx); ctx.Err() == nil {
		return err
	}
	return s.Close()
}

func (s *server) url() string { return "http://" + s.listener.Addr().String() }

// serve returns an error, or nil after a shutdown.
func (s *server) serve() error {
	if err := s.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
