package memory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"

	"github.com/gotidings/tidings/transports"
)

// Config configures a [Broker]. The zero value is ready to use.
type Config struct {
	// QueueSize is the most messages that a subscription holds before publishers
	// have to wait: ready, delayed and in flight together. 0 means 10,000.
	QueueSize int

	// MaxMessageBytes is the largest payload that Publish takes, in bytes. 0
	// means [transports.DefaultMaxMessageBytes].
	MaxMessageBytes int

	// PoisonSize is the most messages in the poison queue of a subscription. 0
	// means 1,000,000.
	PoisonSize int
}

func (c Config) withDefaults() Config {
	if c.QueueSize == 0 {
		c.QueueSize = 10_000
	}
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = transports.DefaultMaxMessageBytes
	}
	if c.PoisonSize == 0 {
		c.PoisonSize = 1_000_000
	}
	return c
}

func (c Config) validate() error {
	var faults []error
	atLeastOne := func(name string, v int) {
		if v < 0 {
			faults = append(faults, fmt.Errorf("%s is %d; it takes at least 1, or 0 for the default", name, v))
		}
	}
	atLeastOne("QueueSize", c.QueueSize)
	atLeastOne("MaxMessageBytes", c.MaxMessageBytes)
	atLeastOne("PoisonSize", c.PoisonSize)
	return errors.Join(faults...)
}

func init() { transports.Register("memory", open) }

// open opens memory://, with the fields of Config as the optional parameters
// queue_size, max_message_bytes and poison_size.
func open(_ context.Context, u *url.URL) (transports.Transport, error) {
	if u.Host != "" || u.User != nil || u.Opaque != "" || u.Path != "" && u.Path != "/" || u.Fragment != "" {
		return nil, fmt.Errorf("%w: it is memory:// with optional parameters only", transports.ErrInvalidURL)
	}
	var cfg Config
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("%w: parameters: %w", transports.ErrInvalidURL, err)
	}
	fields := map[string]*int{
		"queue_size":        &cfg.QueueSize,
		"max_message_bytes": &cfg.MaxMessageBytes,
		"poison_size":       &cfg.PoisonSize,
	}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(query)) {
		field, ok := fields[name]
		if !ok {
			faults = append(faults, fmt.Errorf("unknown parameter %q; known are queue_size, max_message_bytes and poison_size", name))
			continue
		}
		value := query.Get(name)
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			faults = append(faults, fmt.Errorf("parameter %s is %q; it takes a whole number of at least 1", name, value))
			continue
		}
		*field = n
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("%w: %w", transports.ErrInvalidURL, errors.Join(faults...))
	}
	return New(cfg)
}
