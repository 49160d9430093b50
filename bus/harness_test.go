package bus_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// placed and paid are the events of the tests.
type placed struct {
	N   int    `json:"n"`
	Key string `json:"key,omitempty"`
}

func (placed) EventType() string      { return "order.placed" }
func (p placed) PartitionKey() string { return p.Key }

type paid struct {
	N int `json:"n"`
}

func (paid) EventType() string { return "order.paid" }

// setup is a bus on a memory broker that tests can connect to as well.
type setup struct {
	*bus.Bus
	t         *testing.T
	broker    *memory.Broker
	transport *memory.Transport
	steps     *steps
}

// newSetup makes a bus of the service "shop" and ends it with the test.
func newSetup(t *testing.T, cfg bus.Config) *setup {
	t.Helper()
	return newSetupOn(t, newBroker(t, memory.Config{}), cfg)
}

func newBroker(t *testing.T, cfg memory.Config) *memory.Broker {
	t.Helper()
	broker, err := memory.NewBroker(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return broker
}

// connect opens a transport for as long as the test lasts.
func connect(t *testing.T, broker *memory.Broker) *memory.Transport {
	t.Helper()
	transport := broker.Connect()
	t.Cleanup(func() {
		if err := transport.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return transport
}

func newSetupOn(t *testing.T, broker *memory.Broker, cfg bus.Config) *setup {
	t.Helper()
	transport := connect(t, broker)
	s := &setup{t: t, broker: broker, transport: transport, steps: &steps{}}
	if cfg.Source == "" {
		cfg.Source = "shop"
	}
	cfg.OnDelivery = s.steps.add
	s.Bus = newBus(t, transport, cfg)
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return s
}

func newBus(t *testing.T, transport transports.Transport, cfg bus.Config) *bus.Bus {
	t.Helper()
	b, err := bus.New(transport, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s *setup) start() {
	s.t.Helper()
	if err := s.Start(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *setup) publish(events ...any) {
	s.t.Helper()
	if err := s.PublishAll(s.t.Context(), events...); err != nil {
		s.t.Fatal(err)
	}
}

// depth returns what a subscription holds at the broker.
func (s *setup) depth(name string) transports.Depth {
	s.t.Helper()
	d, err := s.transport.Depth(s.t.Context(), "shop."+name)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *setup) poisoned(name string) []transports.Poisoned {
	s.t.Helper()
	var out []transports.Poisoned
	for p, err := range s.Poisoned(s.t.Context(), name) {
		if err != nil {
			s.t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// logBuffer takes a log that is read while it is written.
type logBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// settle waits until nothing can happen any more without time passing.
func settle() { synctest.Wait() }

// pass lets virtual time go by.
func pass(d time.Duration) {
	time.Sleep(d) // virtual
	synctest.Wait()
}

// steps notes what OnDelivery is told.
type steps struct {
	mu  sync.Mutex
	all []bus.Delivery
}

func (s *steps) add(d bus.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, d)
}

// outcomes returns the outcomes so far of a subscription, in words.
func (s *steps) outcomes(subscription string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, d := range s.all {
		if d.Subscription == subscription {
			out = append(out, d.Outcome.String())
		}
	}
	return out
}

// notes is a list that handlers write to.
type notes[T any] struct {
	mu  sync.Mutex
	all []T
}

func (n *notes[T]) add(v T) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, v)
}

func (n *notes[T]) get() []T {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.all)
}

// numbers notes the number of each event and says that it was handled.
func (n *notes[T]) numbers(note func(placed) T) func(context.Context, placed) error {
	return func(_ context.Context, e placed) error {
		n.add(note(e))
		return nil
	}
}

func number(e placed) int { return e.N }

func check[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

func checkAll[T any](t *testing.T, what string, got, want []T) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s are %v, want %v", what, got, want)
	}
}
