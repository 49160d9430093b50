package realtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gotidings/tidings/bus"
)

// Principal is who a client is, as [Config.Authenticate] found out.
type Principal struct {
	// ID names the principal in logs. It is not sent to anybody.
	ID string

	// Expires is when the proof of who it is, a token, ends: so does the connection,
	// and the client has to come with a new one. The zero time means never.
	Expires time.Time

	// Value is whatever Authorize needs besides.
	Value any
}

// Config configures a [Hub]. Bus, Authenticate and Authorize are required; the rest has
// defaults.
type Config struct {
	// Bus is where events come from. It must not have been started, since New adds an
	// ephemeral subscription to it.
	Bus *bus.Bus

	// Subscription is the name of that subscription in the bus. Empty means "realtime".
	Subscription string

	// Authenticate says who makes a request, by its cookie or its [BearerToken]. An error
	// refuses the client; its text is logged and not sent.
	Authenticate func(r *http.Request) (Principal, error)

	// Authorize returns nil when a principal may join a group. An error refuses it:
	// [ErrForbidden], or whatever kept it from deciding, which is logged. Clients are told
	// the same of both, so they can't tell a group that is forbidden from one that
	// does not exist. It is called once for each join, at most one at a time for a client,
	// and never on the bus's path.
	Authorize func(ctx context.Context, p Principal, group string) error

	// Origins are the origins of other sites whose pages may connect, such as
	// "https://app.example.com". Pages of the handler's own host always may, all others
	// never.
	Origins []string

	// MaxClients is the most clients at a time; others are answered 503. 0 means 10,000.
	MaxClients int

	// MaxGroups is the most groups that a client is in at a time. 0 means 32.
	MaxGroups int

	// MaxFrameBytes is the largest message that a client may send; they only join and
	// leave. 0 means 4 KiB.
	MaxFrameBytes int

	// QueueLength is how many messages wait for a client that reads slower than they
	// come. One more, and it is dropped. It must be larger than MaxGroups. 0 means 128.
	QueueLength int

	// WriteTimeout is how long one message may take to be written, and how long a client
	// may take to answer a ping. 0 means 10 s.
	WriteTimeout time.Duration

	// PingInterval is how often a client is asked whether it is there. Proxies should
	// have longer timeouts. 0 means 30 s.
	PingInterval time.Duration

	// History is how many events of each group are kept for clients that come back. 0
	// means 100; a negative one means none.
	History int

	// HistoryBytes bounds the history of all groups together: the oldest events go first.
	// 0 means 64 MiB.
	HistoryBytes int

	// Logger is told who was refused or dropped and why; never of payloads or tokens. nil
	// discards.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.MaxClients, 10_000)
	def(&c.MaxGroups, 32)
	def(&c.MaxFrameBytes, 4<<10)
	def(&c.QueueLength, 128)
	def(&c.History, 100)
	def(&c.HistoryBytes, 64<<20)
	if c.WriteTimeout == 0 {
		c.WriteTimeout = 10 * time.Second
	}
	if c.PingInterval == 0 {
		c.PingInterval = 30 * time.Second
	}
	if c.Subscription == "" {
		c.Subscription = "realtime"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Bus == nil {
		fault("Bus is nil")
	}
	if c.Authenticate == nil {
		fault("Authenticate is nil")
	}
	if c.Authorize == nil {
		fault("Authorize is nil: without it everybody could read everything")
	}
	for _, origin := range c.Origins {
		if u, err := url.Parse(origin); err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != strings.ToLower(origin) {
			fault("origin %q is not a scheme and a host, such as https://app.example.com", origin)
		}
	}
	for _, limit := range []struct {
		name  string
		value int
	}{
		{"MaxClients", c.MaxClients},
		{"MaxGroups", c.MaxGroups},
		{"MaxFrameBytes", c.MaxFrameBytes},
		{"QueueLength", c.QueueLength},
		{"HistoryBytes", c.HistoryBytes},
		{"WriteTimeout", sign(c.WriteTimeout)},
		{"PingInterval", sign(c.PingInterval)},
	} {
		if limit.value < 0 {
			fault("%s is negative", limit.name)
		}
	}
	if c.QueueLength <= c.MaxGroups {
		fault("QueueLength (%d) is not larger than MaxGroups (%d): a client could not join that many at once", c.QueueLength, c.MaxGroups)
	}
	return errors.Join(faults...)
}

// sign is -1 for a negative duration, which an int of 32 bits can't hold, and else 1.
func sign(d time.Duration) int {
	if d < 0 {
		return -1
	}
	return 1
}
