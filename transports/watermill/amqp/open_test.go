package amqp

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wmamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	"github.com/google/uuid"

	"github.com/gotidings/tidings/transports"
)

const secret = "s3cr3t"

// noSecret wants an error without the password.
func noSecret(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Fatal("it succeeds")
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("the error tells the password: %v", err)
	}
}

func TestOpenByURL(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	u := ns.schemed(t)
	u.RawQuery = "topology=nondurable-queue&connect_timeout=5s&consumers=3&max_message_bytes=1000"
	tr, err := transports.Open(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
}

func TestOpenWithAWrongPassword(t *testing.T) {
	t.Parallel()
	u := newNamespace(t).schemed(t)
	u.User = url.UserPassword("guest", secret)
	_, err := transports.Open(t.Context(), u.String())
	noSecret(t, err)
	contains(t, err, "open watermill+amqp transport", "403")
}

func TestOpenWithoutABroker(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed at once, for a port where nobody listens
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = transports.Open(t.Context(), "watermill+amqp://guest:"+secret+"@"+nobody)
	noSecret(t, err)
	contains(t, err, "connection refused")
}

// A server that accepts and says nothing: a firewall, a broker that starts.
func TestOpenIsBounded(t *testing.T) {
	t.Parallel()
	address := silent(t)
	start := time.Now()
	_, err := transports.Open(t.Context(), "watermill+amqp://guest:"+secret+"@"+address+"?connect_timeout=200ms")
	noSecret(t, err)
	if took := time.Since(start); took < 150*time.Millisecond || took > 5*time.Second {
		t.Errorf("it took %s: %v", took, err)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the service is stopped")
	cancel(why)
	uri := "amqp://guest:" + secret + "@" + address + "?connection_timeout=200" // the goroutine's end
	_, err = Open(ctx, Config{AMQP: DurablePubSub(uri)})
	noSecret(t, err)
	if !errors.Is(err, why) {
		t.Errorf("got %v; want why the context ended", err)
	}
	_, err = Open(t.Context(), Config{AMQP: DurablePubSub(uri), ConnectTimeout: time.Millisecond})
	noSecret(t, err)
	contains(t, err, "no broker has answered within 1ms")
}

// A broker that answers when Open has given up: what it then opens is closed again.
func TestBrokerThatAnswersTooLate(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	p := newLateProxy(t, ns.uri)
	u, err := url.Parse(ns.uri)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = p.address
	_, err = Open(t.Context(), Config{AMQP: DurablePubSub(u.String()), ConnectTimeout: 50 * time.Millisecond})
	contains(t, err, "no broker has answered within 50ms")
	close(p.open)
	for range 2 { // the publisher's connection, and the subscribers'
		select {
		case <-p.ended:
		case <-time.After(patience):
			t.Fatal("a connection that nobody has stays open")
		}
	}
}

func TestConfigReportsEveryFault(t *testing.T) {
	t.Parallel()
	_, err := Open(t.Context(), Config{MaxConsumers: -1, ConnectTimeout: -1})
	contains(t, err, "MaxConsumers is -1", "ConnectTimeout is -1ns", "AMQP is nil")
	_, err = Open(t.Context(), Config{AMQP: func(transports.Subscription) wmamqp.Config {
		return wmamqp.Config{Connection: wmamqp.ConnectionConfig{AmqpURI: "amqp://guest:" + secret + "%zz@host"}}
	}})
	noSecret(t, err)
	contains(t, err, "missing Config.Marshaler", "Connection.AmqpURI is malformed")
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rawURL, uri string
		check       func(Config) bool
	}{
		{"watermill+amqp://", "amqp:?connection_timeout=10000", nil},
		{"watermill+amqp://host", "amqp://host?connection_timeout=10000", func(c Config) bool { return c.Ephemeral && c.MaxConsumers == 0 }},
		{
			"watermill+amqps://u:p%40@host:1234/a%2Fb?consumers=3&connect_timeout=2s", "amqps://u:p%40@host:1234/a%2Fb?connection_timeout=2000",
			func(c Config) bool { return c.MaxConsumers == 3 && c.ConnectTimeout == 2*time.Second },
		},
		{
			"watermill+amqp://host?trim_prefix=shop.", "amqp://host?connection_timeout=10000",
			func(c Config) bool {
				return c.AMQP(transports.Subscription{Name: "shop.mail"}).Queue.GenerateName("a") == "a_mail"
			},
		},
		{
			"watermill+amqp://host?topology=queue&max_message_bytes=7", "amqp://host?connection_timeout=10000",
			func(c Config) bool { return !c.Ephemeral && c.MaxMessageBytes == 7 },
		},
	} {
		u, err := url.Parse(c.rawURL)
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := parse(u)
		if err != nil {
			t.Errorf("%s: %v", c.rawURL, err)
			continue
		}
		if got := cfg.AMQP(transports.Subscription{}).Connection.AmqpURI; got != c.uri {
			t.Errorf("%s becomes %s; want %s", c.rawURL, got, c.uri)
		}
		if c.check != nil && !c.check(cfg) {
			t.Errorf("%s becomes %+v", c.rawURL, cfg)
		}
	}
	_, err := transports.Open(t.Context(), "watermill+amqp://u:"+secret+"@host?topology=star&consumers=0&connect_timeout=-1s&max_message_bytes=x&colour=red#there")
	noSecret(t, err)
	if !errors.Is(err, transports.ErrInvalidURL) {
		t.Errorf("%v is not ErrInvalidURL", err)
	}
	contains(t, err, "it looks like", `topology is "star"; it takes nondurable-pubsub, nondurable-queue, pubsub, queue`,
		`consumers is "0"`, `connect_timeout is "-1s"`, `max_message_bytes is "x"`, `unknown parameter "colour"; known are`)
	_, err = transports.Open(t.Context(), "watermill+amqp://u:"+secret+"@host?a=%zz")
	noSecret(t, err)
	if !errors.Is(err, transports.ErrInvalidURL) {
		t.Errorf("%v is not ErrInvalidURL", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("watermill+amqp://u:p@host:1/v?topology=queue&consumers=2&connect_timeout=1s")
	f.Add("watermill+amqps://[::1]:1/%2F?x=%zz#f")
	f.Fuzz(func(t *testing.T, rawURL string) {
		u, err := url.Parse(rawURL)
		if err != nil || !strings.HasPrefix(u.Scheme, "watermill+amqp") {
			t.Skip("not for this package")
		}
		u.User = url.UserPassword("u", "zAq12345wSx")
		cfg, err := parse(u)
		if err != nil {
			if strings.Contains(err.Error(), "zAq12345wSx") {
				t.Errorf("the error tells the password: %v", err)
			}
			return
		}
		if err := cfg.validate(); err != nil && strings.Contains(err.Error(), "zAq12345wSx") {
			t.Errorf("the error tells the password: %v", err)
		}
	})
}

func TestSettings(t *testing.T) {
	t.Parallel()
	const uri = "amqp://host"
	mail := transports.Subscription{Name: "mail"}
	for name, c := range map[string]struct {
		cfg                       wmamqp.Config
		exchange, queue           string
		durable                   bool
		exclusive, channelsAtOnce bool
	}{
		"pubsub":            {cfg: DurablePubSub(uri)(mail), exchange: "a", queue: "a_mail", durable: true, channelsAtOnce: true},
		"nondurable-pubsub": {cfg: NonDurablePubSub(uri)(mail), exchange: "a", queue: "a_mail", channelsAtOnce: true},
		"queue":             {cfg: DurableQueue(uri)(mail), queue: "a", durable: true, channelsAtOnce: true},
		"nondurable-queue":  {cfg: NonDurableQueue(uri)(mail), queue: "a", channelsAtOnce: true},
		"ephemeral": {
			cfg: DurablePubSub(uri)(transports.Subscription{Name: "live", Ephemeral: true}), exchange: "a", queue: "a_live",
			exclusive: true, channelsAtOnce: true,
		},
	} {
		cfg := c.cfg
		if got := cfg.Exchange.GenerateName("a"); got != c.exchange {
			t.Errorf("%s: the exchange is %q", name, got)
		}
		if got := cfg.Queue.GenerateName("a"); got != c.queue {
			t.Errorf("%s: the queue is %q", name, got)
		}
		if cfg.Queue.Durable != c.durable || cfg.Queue.Exclusive != c.exclusive || cfg.Queue.AutoDelete != c.exclusive {
			t.Errorf("%s: the queue is %+v", name, cfg.Queue)
		}
		if (cfg.Publish.ChannelPoolSize > 1) != c.channelsAtOnce || cfg.Connection.AmqpURI != uri {
			t.Errorf("%s: %+v, %+v", name, cfg.Publish, cfg.Connection)
		}
	}

	// What becomes of settings of the user's own.
	own := wmamqp.NewDurablePubSubConfig(uri, nil)
	got := Config{AMQP: func(transports.Subscription) wmamqp.Config { return own }}.settings(mail)
	if _, ok := got.Marshaler.(marshaler); !ok || !got.Publish.ConfirmDelivery {
		t.Errorf("the marshaler is %T, ConfirmDelivery %t; want ours, and true", got.Marshaler, got.Publish.ConfirmDelivery)
	}
	own.Publish.Transactional = true
	own.Marshaler = wmamqp.CorrelatingMarshaler{}
	got = Config{AMQP: func(transports.Subscription) wmamqp.Config { return own }}.settings(mail)
	if _, ok := got.Marshaler.(wmamqp.CorrelatingMarshaler); !ok || got.Publish.ConfirmDelivery {
		t.Errorf("the marshaler is %T, ConfirmDelivery %t; want theirs, and no confirms in a transaction", got.Marshaler, got.Publish.ConfirmDelivery)
	}
}

// Each ephemeral subscription has a name of its own, so its queue is remembered no longer
// than it exists.
func TestQueueOfEphemeralSubscriptionIsForgotten(t *testing.T) {
	t.Parallel()
	cfg := Config{AMQP: DurablePubSub(brokerURI(t)), Ephemeral: true}.withDefaults()
	c := &connections{cfg: cfg, log: watermill.NopLogger{}, queues: make(map[string]string)}
	if err := c.open(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s, err := c.subscriberOf(transports.Subscription{Name: uuid.NewString(), Topics: []string{"a", "b"}, Concurrency: 1, Ephemeral: true})
		if err != nil {
			t.Fatal(err)
		}
		if len(c.queues) != 2 {
			t.Errorf("queues: %v; want those of one subscription", c.queues)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if len(c.queues) > 0 {
		t.Errorf("queues are remembered: %v", c.queues)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
