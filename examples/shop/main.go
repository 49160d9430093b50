// Shop is a service of two halves that talk by events: orders come in over HTTP, and
// workers reserve the stock, send e-mail and promote customers. README.md is a tour.
//
//	go run ./examples/shop                    # all of it in one process, on SQLite
//	go run ./examples/shop -load 500          # puts orders through it and reconciles
//	go run ./examples/shop -help              # the other flags
//
// The exit status is 0; 1 when the run failed, or reconciliation found an order that was
// lost or handled twice; 2 for a usage error.
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
		fmt.Fprintf(stderr, "shop: %v\n(-help shows the flags)\n", err)
		return exitUsage
	}
	if cfg.load > 0 {
		err = runLoad(ctx, cfg, stdout, stderr)
	} else {
		err = serve(ctx, cfg, slog.New(slog.NewTextHandler(stderr, nil)))
	}
	switch {
	case errors.Is(err, transports.ErrInvalidURL), errors.Is(err, transports.ErrUnknownScheme):
		fmt.Fprintf(stderr, "shop: %v\n", err)
		return exitUsage
	case err != nil:
		fmt.Fprintf(stderr, "shop: %v\n", err)
		return exitFailed
	}
	return 0
}
