package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
	_ "github.com/gotidings/tidings/transports/rabbitmq"
	tsql "github.com/gotidings/tidings/transports/sql"
)

const (
	idleSubscriptions = 50
	idleWarmUp        = 3 * time.Second  // connections are made, queues declared
	idleFor           = 30 * time.Second // of peace
)

// runIdle is -idle: what a service costs that has many subscriptions and no events, in
// processor time and in memory that the system has given it. Each has a process of its own.
func runIdle(ctx context.Context, o options, stdout io.Writer) error {
	o.broker = cmp.Or(o.broker, defaultBroker)
	if o.idle != "all" {
		return idleOnce(ctx, o, stdout)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, transport := range []string{"memory", "rabbitmq", "postgres"} {
		cmd := exec.CommandContext(ctx, self, "-idle", transport)
		cmd.Env = append(os.Environ(), brokerVariable+"="+o.broker)
		cmd.Stdout, cmd.Stderr = stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("idle on %s: %w", transport, err)
		}
	}
	return nil
}

func idleOnce(ctx context.Context, o options, stdout io.Writer) (err error) {
	tr, closeAll, err := idleTransport(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	service := "bench-" + events.NewID()
	b, err := bus.New(tr, bus.Config{Source: "bench", Service: service, AllowVolatileDedup: true})
	if err != nil {
		return err
	}
	for n := range idleSubscriptions {
		bus.Subscribe(b, handlerName+strconv.Itoa(n), func(context.Context, purchase) error { return nil })
	}
	if err := b.Start(ctx); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, b.Shutdown(context.Background()))
		for n := range idleSubscriptions {
			name := service + "." + handlerName + strconv.Itoa(n)
			err = errors.Join(err, tr.(transports.SubscriptionRemover).RemoveSubscription(context.Background(), name))
		}
	}()
	if err := pretend(ctx, idleWarmUp); err != nil {
		return err
	}
	runtime.GC()
	before := cpuTime()
	if err := pretend(ctx, idleFor); err != nil {
		return err
	}
	used := cpuTime() - before
	fmt.Fprintf(stdout, "%s, %d subscriptions, %s without an event: %.2f %% of a core, %s KiB resident, %d goroutines\n",
		o.idle, idleSubscriptions, idleFor, 100*used.Seconds()/idleFor.Seconds(), residentKiB(), runtime.NumGoroutine())
	return nil
}

func idleTransport(ctx context.Context, o options) (_ transports.Transport, closeAll func() error, err error) {
	switch o.idle {
	case "memory":
		tr, err := memory.New(memory.Config{})
		if err != nil {
			return nil, nil, err
		}
		return tr, tr.Close, nil
	case "rabbitmq":
		tr, err := transports.Open(ctx, o.broker)
		if err != nil {
			return nil, nil, err
		}
		return tr, tr.Close, nil
	case "postgres":
		d := sqlDatabases[0]
		db, name, clean, err := d.open(ctx)
		if err != nil {
			return nil, nil, err
		}
		tr, err := tsql.New(ctx, db, d.config(name))
		if err != nil {
			return nil, nil, errors.Join(err, clean())
		}
		return tr, func() error { return errors.Join(tr.Close(), clean()) }, nil
	}
	return nil, nil, fmt.Errorf("-idle is %q; it takes memory, rabbitmq, postgres or all", o.idle)
}

// residentKiB is the memory of this process that is in use by what the system says, or
// "unknown".
func residentKiB() string {
	return cmp.Or(strings.TrimSuffix(field("/proc/self/status", "VmRSS"), " kB"), "unknown")
}
