package sql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gotidings/tidings/transports"
)

func init() {
	transports.Register("watermill+postgres", openURL)
	transports.Register("watermill+mysql", openURL)
}

// openURL opens watermill+postgres:// or watermill+mysql:// with whichever driver of
// database/sql is linked.
func openURL(ctx context.Context, u *url.URL) (transports.Transport, error) {
	t, err := parse(u)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", transports.ErrInvalidURL, err)
	}
	driver, err := t.driver(sql.Drivers())
	if err != nil {
		return nil, err
	}
	if t.cfg.DB, err = sql.Open(driver, t.dsn); err != nil {
		return nil, errors.New("watermill-sql: the driver does not understand the URL") // its error may quote it
	}
	t.cfg.Logger = transports.OpenLogger(ctx)
	ctx, cancel := context.WithTimeout(ctx, t.connectTimeout)
	defer cancel()
	tr, err := open(ctx, t.cfg, t.cfg.DB.Close)
	if err != nil {
		return nil, errors.Join(err, t.cfg.DB.Close())
	}
	return tr, nil
}

// target is what a URL says.
type target struct {
	cfg            Config
	dsn            string // holds the password
	connectTimeout time.Duration
}

// parameters are those of this package; all others are the driver's.
var parameters = map[string]func(t *target, value string) error{
	"payload": func(t *target, value string) error {
		types := map[Dialect]string{Postgres: "BYTEA", MySQL: "LONGBLOB"}
		switch value {
		case "json":
			return nil
		case "bytes":
			t.cfg.Schema = schema(t.cfg.Dialect, types[t.cfg.Dialect])
			return nil
		}
		return fmt.Errorf("is %q; it takes json or bytes", value)
	},
	"trim_prefix": func(t *target, value string) error {
		t.cfg.Group = func(s transports.Subscription) string { return strings.TrimPrefix(s.Name, value) }
		return nil
	},
	"from": func(t *target, value string) error {
		if value != "now" && value != "start" {
			return fmt.Errorf("is %q; it takes now or start", value)
		}
		t.cfg.FromStart = value == "start"
		return nil
	},
	"poll_interval":   func(t *target, value string) error { return duration(&t.cfg.PollInterval, value) },
	"resend_interval": func(t *target, value string) error { return duration(&t.cfg.ResendInterval, value) },
	"ack_deadline":    func(t *target, value string) error { return duration(&t.cfg.AckDeadline, value) },
	"connect_timeout": func(t *target, value string) error { return duration(&t.connectTimeout, value) },
}

func duration(field *time.Duration, value string) error {
	d, err := time.ParseDuration(value)
	if err != nil || d <= 0 {
		return fmt.Errorf("is %q; it takes a duration such as 10s", value)
	}
	*field = d
	return nil
}

// parse reads a URL. Its errors quote parameters of this package only.
func parse(u *url.URL) (*target, error) {
	t := &target{connectTimeout: 10 * time.Second}
	t.cfg.Dialect = MySQL
	if u.Scheme == "watermill+postgres" {
		t.cfg.Dialect = Postgres
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("its parameters are malformed")
	}
	var faults []error
	if database := strings.TrimPrefix(u.Path, "/"); u.Opaque != "" || u.Fragment != "" || u.Host == "" || database == "" || strings.Contains(database, "/") {
		faults = append(faults, fmt.Errorf("it looks like %s://user:password@host:port/database", u.Scheme))
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		set, ours := parameters[name]
		if !ours {
			continue
		}
		if err := set(t, query.Get(name)); err != nil {
			faults = append(faults, fmt.Errorf("parameter %s %w", name, err))
		}
		query.Del(name)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	t.dsn = mysqlDSN(u, query)
	if t.cfg.Dialect == Postgres {
		dsn := *u
		dsn.Scheme, dsn.RawQuery = "postgres", query.Encode()
		t.dsn = dsn.String()
	}
	return t, nil
}

// mysqlDSN returns the URL as go-sql-driver/mysql reads it.
func mysqlDSN(u *url.URL, query url.Values) string {
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "3306")
	}
	user := u.User.Username()
	if password, ok := u.User.Password(); ok {
		user += ":" + password
	}
	dsn := user + "@tcp(" + host + ")/" + url.PathEscape(strings.TrimPrefix(u.Path, "/"))
	if len(query) > 0 {
		dsn += "?" + query.Encode()
	}
	return dsn
}

// driver chooses among the drivers that are linked.
func (t *target) driver(linked []string) (string, error) {
	names, remedy := []string{"mysql"}, "github.com/go-sql-driver/mysql"
	if t.cfg.Dialect == Postgres {
		names, remedy = []string{"pgx", "pgx/v5", "postgres"}, "github.com/jackc/pgx/v5/stdlib"
	}
	for _, name := range names {
		if slices.Contains(linked, name) {
			return name, nil
		}
	}
	return "", fmt.Errorf("watermill-sql: no driver is linked; import _ %q", remedy)
}
