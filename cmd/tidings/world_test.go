package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// patience is how long scripts wait for what must happen.
const patience = 4 * time.Minute

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
	// tail PATTERN runs tidings tail in the background until it has shown 5 events, and
	// returns when it has begun.
	"tail": func(ts *testscript.TestScript, _ bool, args []string) { worldOf(ts).tail(ts, args[0]) },
	// tailed waits for the end of tail, and has its output.
	"tailed": func(ts *testscript.TestScript, _ bool, _ []string) {
		w := worldOf(ts)
		ts.Check(w.tailing.Wait())
		_, err := ts.Stdout().Write(w.tailed.Bytes())
		ts.Check(err)
	},
	// topology SERVICE FILE NAME:TOPIC... writes what bus.Topology returns.
	"topology": func(ts *testscript.TestScript, _ bool, args []string) {
		worldOf(ts).topology(ts, args[0], args[1], args[2:]...)
	},
	// relay NAME PATTERN makes the destination of an outbox known.
	"relay": func(ts *testscript.TestScript, _ bool, args []string) {
		log := worldOf(ts).open(ts).(*tsql.Transport)
		ts.Check(log.DeclareSubscription(context.Background(), transports.Subscription{
			Name: outbox.SubscriptionOf(args[0]), Topics: args[1:], Concurrency: 1,
		}, tsql.FromBeginning))
		ts.Check(log.Close())
	},
	// chain TYPE ID... publishes events of which each is the cause of the next.
	"chain": func(ts *testscript.TestScript, _ bool, args []string) {
		t := worldOf(ts).open(ts)
		for i, id := range args[1:] {
			msg := message.NewMessage(id, []byte(`{"n":"`+id+`"}`))
			msg.Metadata["ce_source"], msg.Metadata["ce_type"], msg.Metadata["ce_correlationid"] = "test", args[0], args[1]
			if i > 0 {
				msg.Metadata["ce_causationid"] = args[i]
			}
			ts.Check(t.Publish(args[0], msg))
		}
		ts.Check(t.Close())
	},
	// outbox TYPE COUNT writes events into the log.
	"outbox": func(ts *testscript.TestScript, _ bool, args []string) {
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		t := worldOf(ts).open(ts)
		for range n {
			ts.Check(t.Publish(args[0], message.NewMessage(events.NewID(), []byte("{}"))))
		}
		ts.Check(t.Close())
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
	ts.Check(poisonEvents(t, subscription, n, reason))
	ts.Check(t.Close())
}

// poisonEvents puts events with the ids <reason>-1 and so on into a poison queue.
func poisonEvents(t transports.Transport, subscription string, n int, reason string) error {
	for i := range n {
		id := fmt.Sprintf("%s-%d", reason, i+1)
		msg := message.NewMessage(id, fmt.Appendf(nil, `{"orderId":%d}`, i+1))
		msg.Metadata["ce_source"], msg.Metadata["ce_type"] = "test", "order.created"
		msg.Metadata["content-type"] = "application/json"
		transports.WritePoisoned(transports.Poisoned{
			Message: msg, Reason: fmt.Sprintf("order %d: %s", i+1, reason), ErrorType: "*errors.errorString", Attempts: 3,
			FirstFailure: time.Now(), LastFailure: time.Now(), Subscription: subscription, Service: "shop", Host: "host1",
		})
		if err := t.(transports.PoisonQueue).Poison(context.Background(), subscription, msg); err != nil {
			return err
		}
	}
	return nil
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

func (w *world) topology(ts *testscript.TestScript, service, file string, subscriptions ...string) {
	t := w.open(ts)
	b, err := bus.New(t, bus.Config{Source: "test", Service: service})
	ts.Check(err)
	for _, s := range subscriptions {
		name, topic, _ := strings.Cut(s, ":")
		bus.SubscribeRaw(b, name, []string{topic}, func(context.Context, bus.Raw) error { return nil })
	}
	content, err := json.Marshal(b.Topology())
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(file), content, 0o600))
	ts.Check(t.Close())
}

func (w *world) tail(ts *testscript.TestScript, pattern string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w.tailing = exec.CommandContext(ctx, "tidings", "tail", pattern, "--count", "5", "-o", "json")
	w.tailing.Env = append(os.Environ(), "TIDINGS_TRANSPORT="+w.address)
	w.tailing.Stdout = &w.tailed
	stderr, err := w.tailing.StderrPipe()
	ts.Check(err)
	ts.Check(w.tailing.Start())
	w.atEnd(func() error { cancel(); return nil })
	line, err := bufio.NewReader(stderr).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "showing") {
		ts.Fatalf("tail has not begun: %q %v", line, err)
	}
}
