package sql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gotidings/tidings/internal/dberr"
	"github.com/gotidings/tidings/transports"
)

func init() {
	for scheme := range openers {
		transports.Register(scheme, open)
	}
}

// opener says how the URLs of a scheme become a database.
type opener struct {
	dialect Dialect
	drivers []string // names in database/sql, the preferred one first
	imports string   // what to import when there is none
	dsn     func(u *url.URL, driver string) (string, error)
}

var openers = map[string]opener{
	"postgres":   postgresOpener,
	"postgresql": postgresOpener,
	"mysql":      mysqlOpener,
	"sqlite":     sqliteOpener,
}

var postgresOpener = opener{
	dialect: Postgres,
	drivers: []string{"pgx", "pgx/v5", "postgres"},
	imports: `_ "github.com/jackc/pgx/v5/stdlib"`,
	dsn:     func(u *url.URL, _ string) (string, error) { return u.String(), nil },
}

// connectTimeout is how long open tries to reach a database.
const connectTimeout = 10 * time.Second

// defaultPool is how many connections a transport that opened its database has at most.
const defaultPool = 10

// open opens a URL. Parameters of the transport are taken off it, and the rest is the
// driver's.
func open(ctx context.Context, u *url.URL) (transports.Transport, error) {
	o := openers[u.Scheme]
	cfg, pool, rest, err := parameters(u)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", transports.ErrInvalidURL, err)
	}
	cfg.Dialect, cfg.Logger = o.dialect, transports.OpenLogger(ctx)
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", transports.ErrInvalidURL, err)
	}
	driver := ""
	for _, name := range o.drivers {
		if driver == "" && slices.Contains(sql.Drivers(), name) {
			driver = name
		}
	}
	if driver == "" {
		return nil, fmt.Errorf("no driver of database/sql for it is imported; import one, such as %s", o.imports)
	}
	dsn, err := o.dsn(rest, driver)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", transports.ErrInvalidURL, err)
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", transports.ErrInvalidURL, conceal(err, u))
	}
	db.SetMaxOpenConns(pool)
	db.SetMaxIdleConns(pool)
	db.SetConnMaxIdleTime(time.Minute)
	t, err := connect(ctx, db, cfg)
	if err != nil {
		return nil, errors.Join(conceal(err, u), db.Close())
	}
	t.ownsDB = true
	return t, nil
}

// connect makes the transport, trying for a while when the database can't be reached. When the
// time ends in the middle of a try, the error is why the one before failed.
func connect(ctx context.Context, db *sql.DB, cfg Config) (*Transport, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var away error
	for {
		t, err := New(ctx, db, cfg)
		switch {
		case err == nil:
			return t, nil
		case away != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()):
			return nil, away
		case !dberr.Away(err):
			return nil, err
		}
		away = err
		if !wait(ctx, 100*time.Millisecond) {
			return nil, err
		}
	}
}

// conceal takes the password of a URL out of an error. A word that stands elsewhere in the
// URL too, such as the user's name, is no secret: drivers quote it.
func conceal(err error, u *url.URL) error {
	password, ok := u.User.Password()
	if !ok || password == "" {
		return err
	}
	text := strings.ReplaceAll(err.Error(), u.User.String(), u.User.Username()+":***")
	if !strings.Contains(u.User.Username()+" "+u.Host+u.Path, password) {
		text = strings.ReplaceAll(text, password, "***")
	}
	if text == err.Error() {
		return err
	}
	return errors.New(text) // err has it still
}

// parameters reads the transport's parameters: schema, prefix, migrate, lease,
// poll_interval, retention, notify, max_message_bytes, pool_size. rest is the URL without them.
func parameters(u *url.URL) (cfg Config, pool int, rest *url.URL, err error) {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return cfg, 0, nil, errors.New("its parameters are malformed")
	}
	pool = defaultPool
	migrate := true
	text := func(p *string) func(string) error {
		return func(s string) error { *p = s; return nil }
	}
	number := func(p *int) func(string) error {
		return func(s string) (err error) {
			if *p, err = strconv.Atoi(s); err != nil || *p < 1 {
				return errors.New("it takes a whole number of at least 1")
			}
			return nil
		}
	}
	duration := func(p *time.Duration) func(string) error {
		return func(s string) (err error) {
			if *p, err = time.ParseDuration(s); err != nil {
				return errors.New("it takes a duration such as 30s")
			}
			return nil
		}
	}
	known := map[string]func(string) error{
		"schema": text(&cfg.Schema), "prefix": text(&cfg.Prefix),
		"notify": func(s string) (err error) {
			if cfg.Notify, err = strconv.ParseBool(s); err != nil {
				return errors.New("it takes true or false")
			}
			return nil
		},
		"migrate": func(s string) (err error) {
			if migrate, err = strconv.ParseBool(s); err != nil {
				return errors.New("it takes true or false")
			}
			return nil
		},
		"lease": duration(&cfg.Lease), "poll_interval": duration(&cfg.PollInterval), "retention": duration(&cfg.Retention),
		"max_message_bytes": number(&cfg.MaxMessageBytes), "pool_size": number(&pool),
	}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(query)) {
		set, ok := known[name]
		if !ok {
			continue
		}
		if err := set(query.Get(name)); err != nil {
			faults = append(faults, fmt.Errorf("parameter %s is %q; %w", name, query.Get(name), err))
		}
		query.Del(name)
	}
	cfg.NoMigrate = !migrate
	clone := *u
	clone.RawQuery = query.Encode()
	return cfg, pool, &clone, errors.Join(faults...)
}
