package transports

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// Opener opens a transport by its parsed URL. ctx bounds the opening only, and has the
// logger of the transport, see [OpenLogger].
// Errors of the URL itself wrap [ErrInvalidURL]. No error may hold the URL's password.
type Opener func(ctx context.Context, u *url.URL) (Transport, error)

var (
	openersMu sync.RWMutex // guards openers
	openers   = map[string]Opener{}
)

// Register makes a driver known by its URL scheme. Drivers call it from init.
// It panics when the scheme is taken.
func Register(scheme string, open Opener) {
	openersMu.Lock()
	defer openersMu.Unlock()
	if _, taken := openers[scheme]; taken {
		panic(fmt.Sprintf("transports: scheme %q is registered twice", scheme))
	}
	openers[scheme] = open
}

// OpenOption is a setting of [Open] that no URL can hold.
type OpenOption func(*openConfig)

type openConfig struct{ logger *slog.Logger }

// WithLogger has the transport tell logger of what an operator should know, such as lost
// connections, never of payloads. Without it, or with nil, nothing is told.
func WithLogger(logger *slog.Logger) OpenOption {
	return func(cfg *openConfig) { cfg.logger = logger }
}

type loggerKey struct{}

// OpenLogger returns, in an [Opener], the logger of [WithLogger], and never nil.
func OpenLogger(ctx context.Context) *slog.Logger {
	if logger, ok := ctx.Value(loggerKey{}).(*slog.Logger); ok && logger != nil {
		return logger
	}
	return slog.New(slog.DiscardHandler)
}

// Open opens the transport that a URL names, such as "memory://". The scheme
// chooses the driver, which must have been imported, or the error is
// [ErrUnknownScheme]; the driver's documentation says what its URL may hold, and
// the error is [ErrInvalidURL] when it holds something else.
// ctx bounds the opening, not the transport's life. Errors never contain the
// URL, which may hold a password.
func Open(ctx context.Context, rawURL string, opts ...OpenOption) (Transport, error) {
	var cfg openConfig
	for _, opt := range opts {
		opt(&cfg)
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		// url.Error quotes the whole URL, and some of its causes quote the part
		// that holds the password, so neither may be shown.
		return nil, fmt.Errorf("open transport: %w: malformed%s", ErrInvalidURL, hint(err))
	}
	if u.Scheme == "" {
		return nil, fmt.Errorf("open transport: %w: it has no scheme; it looks like %q", ErrInvalidURL, "memory://")
	}
	openersMu.RLock()
	open, ok := openers[u.Scheme]
	known := slices.Sorted(maps.Keys(openers))
	openersMu.RUnlock()
	if !ok {
		return nil, fmt.Errorf("open transport: %w %q; %s", ErrUnknownScheme, u.Scheme, howToImport(u.Scheme, known))
	}
	t, err := open(context.WithValue(ctx, loggerKey{}, cfg.logger), u)
	if err != nil {
		return nil, fmt.Errorf("open %s transport: %w", u.Scheme, err)
	}
	return t, nil
}

// hint returns a remark on why a URL does not parse that quotes none of it.
func hint(err error) string {
	var escape url.EscapeError
	var host url.InvalidHostError
	switch {
	case errors.As(err, &escape):
		return ": it has a bad %-escape; a % sign in a password is written %25"
	case errors.As(err, &host):
		return ": it has a character that a host name can't have"
	default:
		return ": characters such as / ? # : @ in a user name or password must be %-escaped"
	}
}

const library = "github.com/gotidings/tidings/"

// packages has the import path below the library of the driver for each scheme of the project.
var packages = map[string]string{
	"memory":             "transports/memory",
	"amqp":               "transports/rabbitmq",
	"amqps":              "transports/rabbitmq",
	"postgres":           "transports/sql",
	"postgresql":         "transports/sql",
	"mysql":              "transports/sql",
	"sqlite":             "transports/sql",
	"watermill+amqp":     "transports/watermill/amqp",
	"watermill+amqps":    "transports/watermill/amqp",
	"watermill+postgres": "transports/watermill/sql",
	"watermill+mysql":    "transports/watermill/sql",
}

// databaseDrivers has a driver of database/sql for each scheme that needs one.
var databaseDrivers = map[string]string{
	"postgres":           "github.com/jackc/pgx/v5/stdlib",
	"postgresql":         "github.com/jackc/pgx/v5/stdlib",
	"mysql":              "github.com/go-sql-driver/mysql",
	"sqlite":             "modernc.org/sqlite",
	"watermill+postgres": "github.com/jackc/pgx/v5/stdlib",
	"watermill+mysql":    "github.com/go-sql-driver/mysql",
}

// howToImport says what to do about a scheme that no driver has registered.
func howToImport(scheme string, imported []string) string {
	path, ok := packages[scheme]
	if !ok {
		return fmt.Sprintf("the program imports drivers for [%s]; the library has drivers for [%s]",
			strings.Join(imported, " "), strings.Join(slices.Sorted(maps.Keys(packages)), " "))
	}
	text := fmt.Sprintf("import its driver: _ %q", library+path)
	if driver, ok := databaseDrivers[scheme]; ok {
		text += fmt.Sprintf(", and a driver of database/sql such as _ %q", driver)
	}
	return text
}
