package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports/memory"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// A soak sends many events through one bus, in parts, and before and after each part
// measures something that is known not to change, in a process of its own: what the machine
// does meanwhile falls on both, so the ratio shows whether the bus becomes slower; that of
// processor time, which others on the machine change less, shows it best. Heap and
// goroutines are counted when all events of the part have been handled.
type soak struct {
	name      string
	events    int        // where nothing else is said
	how       publishing // of the bus
	reference leg
	open      func(ctx context.Context, broker string) (*soaked, error)
}

// soaked is the bus of a soak, with its handler.
type soaked struct {
	bus    *bus.Bus
	ledger atomic.Pointer[ledger] // of the part
	close  func() error
}

var soaks = []soak{
	{
		name: "memory", events: 5_000_000, how: publishing{callers: 8, batch: 1},
		reference: leg{name: "memory/publishers=8/watermill", events: 50_000}, open: soakMemory,
	},
	{
		name: "rabbitmq", events: 1_000_000, how: publishing{callers: 4, batch: 100},
		reference: leg{name: "rabbitmq-publish/callers=1/batch=100/raw-window", events: 30_000}, open: soakRabbitMQ,
	},
	{
		name: "postgres", events: 1_000_000, how: publishing{callers: 4, batch: 100},
		reference: leg{name: "postgres/work=drain/river", events: 10_000}, open: soakPostgres,
	},
}

func soakMemory(context.Context, string) (*soaked, error) {
	tr, err := memory.New(memory.Config{})
	if err != nil {
		return nil, err
	}
	b, err := bus.New(tr, bus.Config{Source: "bench"})
	if err != nil {
		return nil, errors.Join(err, tr.Close())
	}
	s := &soaked{bus: b, close: tr.Close}
	err = s.subscribe()
	return s, err
}

func soakRabbitMQ(ctx context.Context, broker string) (*soaked, error) {
	lib, err := openLibrary(ctx, broker)
	if err != nil {
		return nil, err
	}
	b, err := lib.newBus()
	if err != nil {
		return nil, errors.Join(err, lib.close())
	}
	s := &soaked{bus: b, close: lib.close}
	err = s.subscribe()
	return s, err
}

func soakPostgres(ctx context.Context, _ string) (*soaked, error) {
	d := sqlDatabases[0]
	db, name, clean, err := d.open(ctx)
	if err != nil {
		return nil, err
	}
	tr, err := tsql.New(ctx, db, d.config(name))
	if err != nil {
		return nil, errors.Join(err, clean())
	}
	b, err := bus.New(tr, bus.Config{Source: "bench", AllowVolatileDedup: true})
	if err != nil {
		return nil, errors.Join(err, tr.Close(), clean())
	}
	s := &soaked{bus: b, close: func() error { return errors.Join(tr.Close(), clean()) }}
	err = s.subscribe()
	return s, err
}

// subscribe starts the bus with a handler that tells the ledger of the part.
func (s *soaked) subscribe() error {
	bus.Subscribe(s.bus, handlerName, func(_ context.Context, e purchase) error {
		s.ledger.Load().handled(e)
		return nil
	})
	if err := s.bus.Start(context.Background()); err != nil {
		return errors.Join(err, s.close())
	}
	return nil
}

// part sends so many events, waits until each is handled once, and measures that.
func (s *soaked) part(ctx context.Context, how publishing, events int) (_ sample, err error) {
	l := newLedger(events)
	s.ledger.Store(l)
	began, cpu := time.Now(), cpuTime()
	err = l.publishAll(ctx, how, func(ctx context.Context, batch []purchase) error {
		all := make([]any, len(batch))
		for i, e := range batch {
			all[i] = e
		}
		return s.bus.PublishAll(ctx, all...)
	})
	if err == nil {
		err = l.wait(ctx)
	}
	took := sample{Events: events, Elapsed: time.Since(began), CPU: cpuTime() - cpu}
	return took, errors.Join(err, l.verify())
}

// run soaks, and writes a line for each part. reference measures that of the soak.
func (s soak) run(ctx context.Context, o options, reference func(leg) (sample, error), stdout io.Writer) (err error) {
	const parts = 10
	sut, err := s.open(ctx, o.broker)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sut.bus.Shutdown(context.Background()), sut.close()) }()
	events := cmp.Or(o.soakEvents, s.events)
	if _, err := sut.part(ctx, s.how, max(events/100, 1)); err != nil { // it becomes warm
		return fmt.Errorf("warm-up: %w", err)
	}
	rows := [][]string{{"events", "events/s", "÷ reference", "of the first", "CPU ns/event", "÷ reference", "of the first", "heap, KiB", "goroutines"}}
	before, err := reference(s.reference)
	if err != nil {
		return err
	}
	var firstRate, firstCPU float64
	for part := range parts {
		own, err := sut.part(ctx, s.how, events/parts)
		if err != nil {
			return fmt.Errorf("part %d: %w", part+1, err)
		}
		runtime.GC()
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		goroutines := runtime.NumGoroutine()
		after, err := reference(s.reference)
		if err != nil {
			return err
		}
		rate, cpu := 2*own.rate()/(before.rate()+after.rate()), 2*own.cpuNanos()/(before.cpuNanos()+after.cpuNanos())
		if part == 0 {
			firstRate, firstCPU = rate, cpu
		}
		before = after
		rows = append(rows, []string{
			fmt.Sprint(events / parts * (part + 1)), fmt.Sprintf("%.0f", own.rate()), fmt.Sprintf("%.2f", rate), fmt.Sprintf("%.2f", rate/firstRate),
			fmt.Sprintf("%.0f", own.cpuNanos()), fmt.Sprintf("%.2f", cpu), fmt.Sprintf("%.2f", cpu/firstCPU),
			fmt.Sprint(mem.HeapAlloc >> 10), fmt.Sprint(goroutines),
		})
	}
	fmt.Fprintf(stdout, "%s, beside %s\n\n", s.name, s.reference.name)
	writeMarkdown(stdout, rows, 0)
	return nil
}

// runSoaks is -soak.
func runSoaks(ctx context.Context, o options, stdout io.Writer) error {
	o.broker = cmp.Or(o.broker, defaultBroker)
	cases := casesByName(o.broker)
	reference := func(l leg) (sample, error) { return l.measure(ctx, cases, o) }
	found := false
	for _, s := range soaks {
		if o.soak != s.name && o.soak != "all" {
			continue
		}
		found = true
		if err := s.run(ctx, o, reference, stdout); err != nil {
			return fmt.Errorf("soak %s: %w", s.name, err)
		}
		fmt.Fprintln(stdout)
	}
	if !found {
		return fmt.Errorf("-soak is %q; it takes memory, rabbitmq, postgres or all", o.soak)
	}
	return nil
}
