package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
)

// patience is how long scripts wait for what must happen.
const patience = 30 * time.Second

// scriptCommands are what scripts can do besides running the program.
var scriptCommands = map[string]func(*testscript.TestScript, bool, []string){
	// subscribe SERVICE NAME TOPIC... makes a subscription, as a service that has stopped
	// has left it.
	"subscribe": func(ts *testscript.TestScript, _ bool, args []string) {
		worldOf(ts).subscribe(ts, args[0], args[1], args[2:]...)
	},
	// poison SUBSCRIPTION COUNT REASON puts events into a poison queue: <reason>-1 and so on.
	"poison": func(ts *testscript.TestScript, _ bool, args []string) {
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		worldOf(ts).poison(ts, args[0], n, args[2])
	},
	// consume SERVICE NAME TOPIC [FAILURE] runs a service that handles events, or fails of
	// each for good, until the script ends.
	"consume": func(ts *testscript.TestScript, _ bool, args []string) {
		failure := ""
		if len(args) > 3 {
			failure = args[3]
		}
		worldOf(ts).consume(ts, args[0], args[1], args[2], failure)
	},
}

func worldOf(ts *testscript.TestScript) *world { return ts.Value("world").(*world) }

func (w *world) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	for _, stop := range slices.Backward(w.stops) {
		errs = append(errs, stop())
	}
	return errors.Join(errs...)
}

func (w *world) atEnd(stop func() error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stops = append(w.stops, stop)
}

// open opens a transport as a service does, which makes what is missing.
func (w *world) open(ts *testscript.TestScript) transports.Transport {
	t, err := transports.Open(context.Background(), w.address)
	ts.Check(err)
	return t
}

func (w *world) subscribe(ts *testscript.TestScript, service, name string, topics ...string) {
	t := w.open(ts)
	b, err := bus.New(t, bus.Config{Source: "test", Service: service})
	ts.Check(err)
	bus.SubscribeRaw(b, name, topics, func(context.Context, bus.Raw) error { return nil })
	ts.Check(b.Start(context.Background()))
	ts.Check(b.Shutdown(context.Background()))
	ts.Check(t.Close())
}

func (w *world) poison(ts *testscript.TestScript, subscription string, n int, reason string) {
	t := w.open(ts)
	for i := range n {
		id := fmt.Sprintf("%s-%d", reason, i+1)
		msg := message.NewMessage(id, fmt.Appendf(nil, `{"orderId":%d}`, i+1))
		msg.Metadata["ce_source"], msg.Metadata["ce_type"] = "test", "order.created"
		transports.WritePoisoned(transports.Poisoned{
			Message: msg, Reason: fmt.Sprintf("order %d: %s", i+1, reason), ErrorType: "*errors.errorString", Attempts: 3,
			FirstFailure: time.Now(), LastFailure: time.Now(), Subscription: subscription, Service: "shop", Host: "host1",
		})
		ts.Check(t.(transports.PoisonQueue).Poison(context.Background(), subscription, msg))
	}
	ts.Check(t.Close())
}

func (w *world) consume(ts *testscript.TestScript, service, name, topic, failure string) {
	t := w.open(ts)
	b, err := bus.New(t, bus.Config{Source: "test", Service: service})
	ts.Check(err)
	bus.SubscribeRaw(b, name, []string{topic}, func(_ context.Context, raw bus.Raw) error {
		if failure == "" {
			return nil
		}
		var order struct{ OrderID int }
		if err := json.Unmarshal(raw.Data, &order); err != nil {
			return err
		}
		return bus.Permanent(fmt.Errorf("order %d: %s", order.OrderID, failure))
	})
	ts.Check(b.Start(context.Background()))
	w.atEnd(sync.OnceValue(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return errors.Join(b.Shutdown(ctx), t.Close())
	}))
}
