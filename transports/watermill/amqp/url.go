package amqp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	wmamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"

	"github.com/gotidings/tidings/transports"
)

func init() {
	transports.Register("watermill+amqp", open)
	transports.Register("watermill+amqps", open)
}

// open opens watermill+amqp://user:password@host:port/vhost, or watermill+amqps for TLS,
// with the parameters of parameters.
func open(ctx context.Context, u *url.URL) (transports.Transport, error) {
	cfg, err := parse(u)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", transports.ErrInvalidURL, err)
	}
	cfg.Logger = transports.OpenLogger(ctx)
	return Open(ctx, cfg)
}

// topologies are the values of the parameter topology.
var topologies = map[string]func(uri string) func(transports.Subscription) wmamqp.Config{
	"pubsub":            DurablePubSub,
	"queue":             DurableQueue,
	"nondurable-pubsub": NonDurablePubSub,
	"nondurable-queue":  NonDurableQueue,
}

// parameters are what a URL may say beside the broker.
var parameters = map[string]func(cfg *Config, value string) error{
	"topology":    func(*Config, string) error { return nil }, // these two are read by parse
	"trim_prefix": func(*Config, string) error { return nil },
	"consumers": func(cfg *Config, value string) error {
		return atLeastOne(&cfg.MaxConsumers, value)
	},
	"max_message_bytes": func(cfg *Config, value string) error {
		return atLeastOne(&cfg.MaxMessageBytes, value)
	},
	"connect_timeout": func(cfg *Config, value string) error {
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 {
			return fmt.Errorf("is %q; it takes a duration such as 10s", value)
		}
		cfg.ConnectTimeout = d
		return nil
	},
}

func atLeastOne(field *int, value string) error {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 {
		return fmt.Errorf("is %q; it takes a whole number of at least 1", value)
	}
	*field = n
	return nil
}

// parse reads a URL. Its errors quote parameters only.
func parse(u *url.URL) (Config, error) {
	var cfg Config
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return cfg, errors.New("its parameters are malformed")
	}
	var faults []error
	if u.Opaque != "" || u.Fragment != "" {
		faults = append(faults, errors.New("it looks like watermill+amqp://user:password@host:port/vhost?topology=pubsub"))
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		set, ok := parameters[name]
		if !ok {
			faults = append(faults, fmt.Errorf("unknown parameter %q; known are %s", name, strings.Join(slices.Sorted(maps.Keys(parameters)), ", ")))
			continue
		}
		if err := set(&cfg, query.Get(name)); err != nil {
			faults = append(faults, fmt.Errorf("parameter %s %w", name, err))
		}
	}
	topology := query.Get("topology")
	if topology == "" {
		topology = "pubsub"
	}
	settings, ok := topologies[topology]
	if !ok {
		faults = append(faults, fmt.Errorf("parameter topology is %q; it takes %s", topology, strings.Join(slices.Sorted(maps.Keys(topologies)), ", ")))
	}
	if err := errors.Join(faults...); err != nil {
		return cfg, err
	}
	cfg.Ephemeral = strings.HasSuffix(topology, "pubsub")
	stock := settings(amqpURI(u, cfg.withDefaults().ConnectTimeout))
	cfg.AMQP = func(s transports.Subscription) wmamqp.Config {
		s.Name = strings.TrimPrefix(s.Name, query.Get("trim_prefix"))
		return stock(s)
	}
	return cfg, nil
}

// amqpURI returns the URL as amqp091-go reads it.
func amqpURI(u *url.URL, connectTimeout time.Duration) string {
	uri := *u
	uri.Scheme = strings.TrimPrefix(u.Scheme, "watermill+")
	// What is left behind when Open gives up ends by itself, too.
	uri.RawQuery = "connection_timeout=" + strconv.FormatInt(max(connectTimeout.Milliseconds(), 1), 10)
	return uri.String()
}
