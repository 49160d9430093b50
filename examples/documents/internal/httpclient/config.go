package httpclient

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
)

// Config configures a [Client]. Name and BaseURL are required; the rest has defaults.
type Config struct {
	// Name is that of the service, for logs, errors and metrics: "ocr".
	Name string

	// BaseURL is where the service is, http or https, such as "https://ocr.internal/v1".
	// Paths of requests are added to it. It has no user, query or fragment.
	BaseURL string

	// Transport makes the requests. nil means [http.DefaultTransport]. It gets each try,
	// so a balancer in it sends a retry to another instance.
	Transport http.RoundTripper

	// Auth, if set, puts credentials on each try. See package httpauth.
	Auth func(*http.Request) error

	// MaxRetries is how often a call is repeated. 0 means 3, less than 0 not at all.
	MaxRetries int

	// RetryDelay is the wait before the first retry; it doubles each time, and a quarter of
	// it is added or taken off at random. A Retry-After of the service comes first. 0 means
	// 2 s.
	RetryDelay time.Duration

	// TryTimeout bounds a try and Timeout a call with all its retries. 0 means 10 s and
	// 30 s.
	TryTimeout, Timeout time.Duration

	// BreakerFailures in a row open the circuit, for BreakerDelay; then one try at a time
	// shows whether it can be closed. 0 means 5 and 30 s.
	BreakerFailures uint
	BreakerDelay    time.Duration

	// OnBreaker, if set, is called when the circuit has changed, possibly concurrently. It
	// must not block.
	OnBreaker func(from, to circuitbreaker.State)

	// MaxConcurrent is how many tries are under way at a time. One more waits for
	// MaxWait, and then fails. 0 means 32 and 1 s.
	MaxConcurrent uint
	MaxWait       time.Duration

	// MaxResponseBytes bounds the body of a response. 0 means 1 MiB.
	MaxResponseBytes int64

	// TracerProvider makes the spans. nil means the global one.
	TracerProvider trace.TracerProvider

	// Logger takes a line for each try: never a header, a query or a body. nil means to
	// discard.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Transport == nil {
		c.Transport = http.DefaultTransport
	}
	if c.Auth == nil {
		c.Auth = func(*http.Request) error { return nil }
	}
	if c.OnBreaker == nil {
		c.OnBreaker = func(_, _ circuitbreaker.State) {}
	}
	if c.TracerProvider == nil {
		c.TracerProvider = otel.GetTracerProvider()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	orDefault(&c.MaxRetries, 3)
	c.MaxRetries = max(c.MaxRetries, 0)
	orDefault(&c.RetryDelay, 2*time.Second)
	orDefault(&c.TryTimeout, 10*time.Second)
	orDefault(&c.Timeout, 30*time.Second)
	orDefault(&c.BreakerFailures, 5)
	orDefault(&c.BreakerDelay, 30*time.Second)
	orDefault(&c.MaxConcurrent, 32)
	orDefault(&c.MaxWait, time.Second)
	orDefault(&c.MaxResponseBytes, 1<<20)
	return c
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate returns the base URL, or all faults of c.
func (c Config) validate() (*url.URL, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Name == "" {
		fault("Name is empty")
	}
	base, err := url.Parse(c.BaseURL)
	switch { // the text of the fault has no URL, which may have a password
	case err != nil, base.Host == "", base.Scheme != "http" && base.Scheme != "https":
		fault("BaseURL is not an http or https URL with a host")
	case base.User != nil, base.RawQuery != "", base.Fragment != "":
		fault("BaseURL has a user, a query or a fragment")
	}
	for name, d := range map[string]time.Duration{
		"RetryDelay": c.RetryDelay, "TryTimeout": c.TryTimeout, "Timeout": c.Timeout,
		"BreakerDelay": c.BreakerDelay, "MaxWait": c.MaxWait,
	} {
		if d < 0 {
			fault("%s is %v; it must not be negative", name, d)
		}
	}
	if c.MaxResponseBytes < 0 {
		fault("MaxResponseBytes is %d; it must not be negative", c.MaxResponseBytes)
	}
	return base, errors.Join(faults...)
}
