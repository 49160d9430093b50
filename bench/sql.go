package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	wsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// errNoServer is the error of a case whose server is not there.
var errNoServer = errors.New("no server")

// sqlDatabase is a database that SQL cases run on.
type sqlDatabase struct {
	name   string
	driver string
	env    string // has the DSN, in the driver's notation
	dsn    string // where it is not set
	params string // more of the DSN
	config func(name string) tsql.Config

	schema  wsql.SchemaAdapter // of the peer; nil where it has none
	offsets wsql.OffsetsAdapter
}

var sqlDatabases = []sqlDatabase{
	{
		name: "postgres", driver: "pgx", env: "POSTGRES_URL", dsn: "postgres://postgres@127.0.0.1:5432/test?sslmode=disable",
		config: func(name string) tsql.Config { return tsql.Config{Dialect: tsql.Postgres, Prefix: name + "_"} },
		schema: wsql.DefaultPostgreSQLSchema{}, offsets: wsql.DefaultPostgreSQLOffsetsAdapter{},
	},
	{
		name: "mysql", driver: "mysql", env: "MYSQL_DSN", dsn: "root@tcp(127.0.0.1:3306)/test?parseTime=true",
		config: func(name string) tsql.Config { return tsql.Config{Dialect: tsql.MySQL, Prefix: name + "_"} },
		schema: wsql.DefaultMySQLSchema{}, offsets: wsql.DefaultMySQLOffsetsAdapter{},
	},
	{
		name: "sqlite", driver: "sqlite",
		config: func(string) tsql.Config { return tsql.Config{Dialect: tsql.SQLite} },
	},
}

// singly is a number of publishers: one that waits until its event is handled.
const singly = -1

// sqlCases measure a backlog being handled, by a handler that returns at once and by one
// that waits; from publish to handled; and how long that takes a single event when there
// is nothing else to do.
func sqlCases() []benchCase {
	var cases []benchCase
	for _, d := range sqlDatabases {
		add := func(work, peer string, prepare func(ctx context.Context, l *ledger) (rig, error)) {
			cases = append(cases, benchCase{group: d.name, variant: "work=" + work, peer: peer, prepare: prepare})
		}
		for _, c := range []struct {
			work       string
			roundTrip  time.Duration // of the network
			idle       int           // subscriptions beside it, to which nothing is published
			takes      time.Duration
			publishers int // 0: a backlog
			opts       []bus.SubscribeOption
			most, peer int // events, of the library and of the peer; 0: any number
		}{
			{work: "drain"},
			{work: "drain-10ms", takes: 10 * time.Millisecond, opts: []bus.SubscribeOption{bus.Concurrency(64)}},
			{work: "drain-10ms-away", roundTrip: 10 * time.Millisecond},
			{work: "drain-beside-45-idle", idle: 45},
			{work: "publish-8", publishers: 8},
			{work: "idle", publishers: singly, most: 300, peer: 20},
		} {
			if c.roundTrip != 0 && d.driver == "sqlite" {
				continue // there is no network
			}
			add(c.work, reference, func(ctx context.Context, l *ledger) (rig, error) {
				return prepareSQLFrom(ctx, d, c.roundTrip, func(d sqlDatabase) (rig, error) {
					return prepareSQL(ctx, l, d, c.takes, c.publishers, c.idle, c.opts)
				})
			})
			cases[len(cases)-1].most = c.most
			if c.roundTrip != 0 || c.idle != 0 {
				continue // the library beside itself
			}
			if d.schema != nil {
				add(c.work, "watermill-sql", func(ctx context.Context, l *ledger) (rig, error) {
					return prepareWatermillSQL(ctx, l, d, c.takes, c.publishers)
				})
				cases[len(cases)-1].most = c.peer
			}
			if d.name == "postgres" && c.publishers == 0 {
				add(c.work, "river", func(ctx context.Context, l *ledger) (rig, error) {
					return prepareRiver(ctx, l, d, c.takes)
				})
				cases[len(cases)-1].note = riverNote
			}
		}
		for _, c := range sqlPublishCases(d) {
			add(c.variant, c.peer, c.prepare)
		}
		for _, c := range eventstoreCases(d) {
			add(c.variant, c.peer, c.prepare)
		}
	}
	return cases
}

// url returns the DSN, in the driver's notation.
func (d sqlDatabase) url() string { return cmp.Or(os.Getenv(d.env), d.dsn) + d.params }

// prepareSQLFrom prepares with a database that is as far away as roundTrip says.
func prepareSQLFrom(ctx context.Context, d sqlDatabase, roundTrip time.Duration, prepare func(sqlDatabase) (rig, error)) (rig, error) {
	if roundTrip == 0 {
		return prepare(d)
	}
	d, end, err := d.far(context.WithoutCancel(ctx), roundTrip)
	if err != nil {
		return rig{}, err
	}
	r, err := prepare(d)
	if err != nil {
		return rig{}, errors.Join(err, end())
	}
	closeRig := r.close
	r.close = func() error { return errors.Join(closeRig(), end()) }
	return r, nil
}

// open returns a pool and a name that no other run has; clean drops all that has it.
func (d sqlDatabase) open(ctx context.Context) (db *sql.DB, name string, clean func() error, err error) {
	random := make([]byte, 5)
	_, _ = rand.Read(random)
	name = "bench_" + hex.EncodeToString(random)
	dsn, dir := d.url(), ""
	if d.driver == "sqlite" {
		if dir, err = os.MkdirTemp("", "bench"); err != nil {
			return nil, "", nil, err
		}
		dsn = "file:" + filepath.Join(dir, "bench.db") + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_txlock=immediate"
	}
	if db, err = sql.Open(d.driver, dsn); err != nil {
		return nil, "", nil, err
	}
	if err := db.PingContext(ctx); err != nil {
		return nil, "", nil, errors.Join(fmt.Errorf("%w: %s: %w", errNoServer, d.name, err), db.Close())
	}
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	return db, name, func() error {
		return errors.Join(d.drop(context.WithoutCancel(ctx), db, name), db.Close(), os.RemoveAll(dir))
	}, nil
}

// drop drops the tables whose names have name in them.
func (d sqlDatabase) drop(ctx context.Context, db *sql.DB, name string) error {
	if d.driver == "sqlite" {
		return nil // with its folder
	}
	tables, err := tablesWith(ctx, db, name)
	if err != nil {
		return err
	}
	for _, table := range tables {
		query := `drop table "` + table + `" cascade`
		if d.driver == "mysql" {
			query = "drop table `" + table + "`"
		}
		if _, err := db.ExecContext(ctx, query); err != nil {
			return err
		}
	}
	return nil
}

// tablesWith lists the tables that have name in theirs.
func tablesWith(ctx context.Context, db *sql.DB, name string) (tables []string, err error) {
	rows, err := db.QueryContext(ctx, "select table_name from information_schema.tables where table_name like '%"+name+"%'")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var table string
		if err := rows.Scan(&table); err != nil {
			return nil, err
		}
		tables = append(tables, table)
	}
	return tables, rows.Err()
}

// publishing returns what publishes every event, singly or by so many publishers at a time.
func (l *ledger) publishing(publishers int, send func(context.Context, purchase) error) func(context.Context) error {
	if publishers != singly {
		return func(ctx context.Context) error { return l.publish(ctx, publishers, send) }
	}
	l.singly()
	return func(ctx context.Context) error {
		return l.oneByOne(ctx, func(ctx context.Context, e purchase) (time.Time, error) {
			since := time.Now()
			return since, send(ctx, e)
		})
	}
}

// pretend is a handler that takes some time.
func pretend(ctx context.Context, work time.Duration) error {
	if work == 0 {
		return nil
	}
	select {
	case <-time.After(work):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// inBatches calls send with all events, 1,000 at a time.
func inBatches(l *ledger, send func(batch []purchase) error) error {
	all := make([]purchase, len(l.handledTimes))
	for seq := range all {
		all[seq] = newPurchase(seq)
	}
	for batch := range slices.Chunk(all, 1000) {
		if err := send(batch); err != nil {
			return err
		}
	}
	return nil
}

// prepareSQL is the bus with everything at its default. Without publishers all events are
// published before the measured time.
func prepareSQL(ctx context.Context, l *ledger, d sqlDatabase, work time.Duration, publishers, idle int, opts []bus.SubscribeOption) (r rig, err error) {
	db, name, clean, err := d.open(ctx)
	if err != nil {
		return rig{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, clean())
		}
	}()
	tr, err := tsql.New(ctx, db, d.config(name))
	if err != nil {
		return rig{}, fmt.Errorf("%s: %w", d.name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tr.Close())
		}
	}()
	b, err := bus.New(tr, bus.Config{Source: "bench", AllowVolatileDedup: true})
	if err != nil {
		return rig{}, err
	}
	bus.Subscribe(b, "handler", func(ctx context.Context, e purchase) error {
		if err := pretend(ctx, work); err != nil {
			return err
		}
		l.handled(e)
		return nil
	}, opts...)
	for i := range idle {
		bus.Subscribe(b, fmt.Sprint("idle", i), func(context.Context, refund) error { return nil })
	}
	run := b.Start
	if publishers != 0 {
		if err := b.Start(ctx); err != nil {
			return rig{}, err
		}
		run = l.publishing(publishers, func(ctx context.Context, e purchase) error { return b.Publish(ctx, e) })
	} else if err := preload(ctx, l, tr); err != nil {
		return rig{}, err
	}
	return rig{run: run, close: func() error {
		return errors.Join(b.Shutdown(context.Background()), tr.Close(), clean())
	}}, nil
}

// refund is an event that nobody publishes.
type refund struct{}

func (refund) EventType() string { return "refund.made" }

// preload publishes all events to the subscription of the bus, which has not started yet.
func preload(ctx context.Context, l *ledger, tr *tsql.Transport) error {
	s := transports.Subscription{Name: "bench.handler", Topics: []string{purchaseType}, Concurrency: 1}
	if err := tr.DeclareSubscription(ctx, s, tsql.FromNow); err != nil {
		return err
	}
	publisher, err := bus.New(tr, bus.Config{Source: "bench"})
	if err != nil {
		return err
	}
	return inBatches(l, func(batch []purchase) error {
		all := make([]any, len(batch))
		for i, e := range batch {
			all[i] = e
		}
		return publisher.PublishAll(ctx, all...)
	})
}
