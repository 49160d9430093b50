package amqp

import (
	"io"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	wmamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	"github.com/google/uuid"
	"github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"

	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
	adapter "github.com/gotidings/tidings/transports/watermill"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// brokerURI returns the URL of a broker for tests.
func brokerURI(t *testing.T) string {
	t.Helper()
	return testserver.RabbitMQ(t)
}

// namespace is a test's place on the broker. What is made there is deleted at its end.
type namespace struct {
	uri    string
	prefix string // of every topic and subscription

	mu        sync.Mutex
	queues    map[string]bool
	exchanges map[string]bool
}

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	ns := &namespace{
		uri: brokerURI(t), prefix: "tidings-test-" + uuid.NewString()[:8] + "-",
		queues: make(map[string]bool), exchanges: make(map[string]bool),
	}
	t.Cleanup(func() { ns.clean(t) })
	return ns
}

func (ns *namespace) clean(t *testing.T) {
	t.Helper()
	ns.onChannel(t, func(ch *amqp091.Channel) {
		ns.mu.Lock()
		defer ns.mu.Unlock()
		for _, queue := range slices.Sorted(maps.Keys(ns.queues)) {
			if _, err := ch.QueueDelete(queue, false, false, false); err != nil {
				t.Errorf("clean up queue %s: %v", queue, err)
			}
		}
		for _, exchange := range slices.Sorted(maps.Keys(ns.exchanges)) {
			if err := ch.ExchangeDelete(exchange, false, false); err != nil {
				t.Errorf("clean up exchange %s: %v", exchange, err)
			}
		}
	})
}

// onChannel calls fn with a channel of a connection of its own.
func (ns *namespace) onChannel(t *testing.T, fn func(*amqp091.Channel)) {
	t.Helper()
	conn, err := amqp091.Dial(ns.uri)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	fn(ch)
}

// recorded returns the settings with names that are noted for clean.
func (ns *namespace) recorded(settings func(transports.Subscription) wmamqp.Config) func(transports.Subscription) wmamqp.Config {
	return func(s transports.Subscription) wmamqp.Config {
		cfg := settings(s)
		exchange, queue := cfg.Exchange.GenerateName, cfg.Queue.GenerateName
		cfg.Exchange.GenerateName = func(topic string) string { return ns.note(ns.exchanges, exchange(topic)) }
		cfg.Queue.GenerateName = func(topic string) string { return ns.note(ns.queues, queue(topic)) }
		return cfg
	}
}

func (ns *namespace) note(names map[string]bool, name string) string {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if name != "" {
		names[name] = true
	}
	return name
}

// open opens a transport that the test's end closes.
func (ns *namespace) open(t *testing.T, cfg Config) *adapter.Transport {
	t.Helper()
	cfg.AMQP = ns.recorded(cfg.AMQP)
	tr, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

// schemed returns the broker's URI as a URL of this package.
func (ns *namespace) schemed(t *testing.T) *url.URL {
	t.Helper()
	u, err := url.Parse(ns.uri)
	if err != nil {
		t.Fatal(err)
	}
	u.Scheme = "watermill+" + u.Scheme
	return u
}

// silent is a server that accepts connections and says nothing.
func silent(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a listener of the test, closed at its end
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer func() { _ = conn.Close() }()
				buf := make([]byte, 1024)
				for {
					if _, err := conn.Read(buf); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return l.Addr().String()
}

// lateProxy passes connections on to a broker, once it is open.
type lateProxy struct {
	address string
	open    chan struct{} // to be closed
	ended   chan struct{} // gets a token for each connection that has ended
}

func newLateProxy(t *testing.T, brokerURI string) *lateProxy {
	t.Helper()
	uri, err := amqp091.ParseURI(brokerURI)
	if err != nil {
		t.Fatal(err)
	}
	broker := net.JoinHostPort(uri.Host, strconv.Itoa(uri.Port))
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a listener of the test, closed at its end
	if err != nil {
		t.Fatal(err)
	}
	p := &lateProxy{address: l.Addr().String(), open: make(chan struct{}), ended: make(chan struct{}, 10)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				<-p.open
				defer func() {
					_ = client.Close()
					p.ended <- struct{}{}
				}()
				server, err := net.Dial("tcp", broker) //nolint:noctx // ends with the client
				if err != nil {
					t.Error(err)
					return
				}
				serving.Go(func() {
					_, _ = io.Copy(client, server)
					_ = client.Close()
				})
				_, _ = io.Copy(server, client)
				_ = server.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return p
}

func contains(t *testing.T, err error, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in: %v", want, err)
		}
	}
}
