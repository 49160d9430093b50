// Documents is a document-processing system of several services that talk in every way that
// real systems need. README.md is a tour.
//
//	go run ./examples/documents                 # all of it in one process; shows the page's address
//	go run ./examples/documents -once           # processes a sample, counts, and ends
//	go run ./examples/documents -input DIR      # processes the *.txt files of a folder
//	go run ./examples/documents -help           # the other flags
//
// The exit status is 0; 1 when the run failed, or -once has found a document lost; 2 for a
// usage error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/gotidings/tidings/transports"
)

// Exit statuses.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// run is the program. It returns the exit status.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	cfg, err := parseConfig(args, getenv, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "documents: %v\n(-help shows the flags)\n", err)
		return exitUsage
	}
	level := slog.LevelInfo
	if cfg.once {
		level = slog.LevelError // calls fail on purpose
	}
	log := slog.New(traced{slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})})
	tracer, closeTracer, err := cfg.openTracer()
	switch {
	case err != nil:
	case cfg.once:
		err = errors.Join(runOnce(ctx, cfg, tracer, log, stdout), closeTracer())
	default:
		err = errors.Join(serve(ctx, cfg, tracer, log, stdout), closeTracer())
	}
	switch {
	case errors.Is(err, transports.ErrInvalidURL), errors.Is(err, transports.ErrUnknownScheme):
		fmt.Fprintf(stderr, "documents: %v\n", err)
		return exitUsage
	case err != nil:
		fmt.Fprintf(stderr, "documents: %v\n", err)
		return exitFailed
	}
	return 0
}
