package sqltest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// reads counts what statements read of tables and indexes, as the database counts it.
type reads struct {
	mu   sync.Mutex     // guards most
	most map[string]int // by statement, of one execution
	seen map[string]int // executions
}

func (r *reads) note(statement string, rows int) {
	statement = withoutIDs(statement)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.most[statement] = max(r.most[statement], rows)
}

// known reports whether a statement has been seen often enough.
func (r *reads) known(statement string) bool {
	const enough = 10
	statement = withoutIDs(statement)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[statement]++
	return r.seen[statement] > enough
}

// withoutIDs shortens lists of ids.
func withoutIDs(statement string) string {
	return idLists.ReplaceAllString(strings.Join(strings.Fields(statement), " "), "…")
}

var idLists = regexp.MustCompile(`-?\d+(\)?,\(?-?\d+)+`)

// watched returns a pool that counts what its statements read.
func (r *reads) watched(t *testing.T, b backend) *sql.DB {
	t.Helper()
	switch b.cfg.Dialect {
	case tsql.Postgres:
		return r.explained(t, b)
	case tsql.MySQL:
		return b.spied(t, r.replay(t, b))
	default:
		return b.spied(t, r.plan(t, b))
	}
}

// explained has PostgreSQL send what each plan node has really read.
func (r *reads) explained(t *testing.T, b backend) *sql.DB {
	t.Helper()
	cfg, err := pgx.ParseConfig(testsql.PostgresServer.URL())
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(cfg.RuntimeParams, map[string]string{
		"session_preload_libraries": "auto_explain", "client_min_messages": "log", "auto_explain.log_min_duration": "0",
		"auto_explain.log_analyze": "on", "auto_explain.log_timing": "off", "auto_explain.log_format": "json",
	})
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		_, text, found := strings.Cut(n.Message, "plan:")
		if !found {
			return
		}
		var explained struct {
			Query string `json:"Query Text"`
			Plan  planNode
		}
		if err := json.Unmarshal([]byte(text), &explained); err != nil {
			t.Error(err)
			return
		}
		r.note(explained.Query, explained.Plan.rows())
	}
	db := stdlib.OpenDB(*cfg)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// planNode is a node of a plan of PostgreSQL.
type planNode struct {
	Relation string     `json:"Relation Name"`
	Rows     float64    `json:"Actual Rows"`
	Loops    float64    `json:"Actual Loops"`
	Filtered float64    `json:"Rows Removed by Filter"`
	Plans    []planNode `json:"Plans"`
}

func (p planNode) rows() int {
	n := 0
	if p.Relation != "" {
		n = int((p.Rows + p.Filtered) * p.Loops)
	}
	for _, child := range p.Plans {
		n += child.rows()
	}
	return n
}

// replay executes a statement beforehand on a connection of its own, without its locks, and
// rolls it back. The server counts what the connection reads.
func (r *reads) replay(t *testing.T, b backend) func(string, []driver.NamedValue) {
	t.Helper()
	var mu sync.Mutex // the connection is one
	conn, err := b.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx := context.Background()
	handlers := func() int {
		rows, err := conn.QueryContext(ctx, "show session status like 'Handler_read%'")
		if err != nil {
			t.Error(err)
			return 0
		}
		defer func() { _ = rows.Close() }()
		total := 0
		for rows.Next() {
			var name string
			var n int
			if err := rows.Scan(&name, &n); err != nil {
				t.Error(err)
			}
			total += n
		}
		if err := rows.Err(); err != nil {
			t.Error(err)
		}
		return total
	}
	if _, err := conn.ExecContext(ctx, "set session innodb_lock_wait_timeout = 1"); err != nil {
		t.Fatal(err)
	}
	execute := func(query string, args []any) error {
		tx, err := conn.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }() // what it has done is not meant to stay
		rows, err := tx.QueryContext(ctx, query, args...)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
		}
		return rows.Err()
	}
	return func(query string, named []driver.NamedValue) {
		for _, skipped := range []string{"begin", "insert", "update `" + b.cfg.Prefix + "subscriptions", "update `" + b.cfg.Prefix + "log"} {
			if strings.HasPrefix(query, skipped) {
				return
			}
		}
		if r.known(query) {
			return
		}
		for _, lock := range []string{" for update skip locked", " for update"} {
			query = strings.Replace(query, lock, "", 1)
		}
		args := make([]any, len(named))
		for i, v := range named {
			args[i] = v.Value
		}
		mu.Lock()
		defer mu.Unlock()
		before := handlers()
		between := handlers()
		if err := execute(query, args); err != nil {
			if !strings.Contains(err.Error(), "Lock wait") && !strings.Contains(err.Error(), "Deadlock") {
				t.Errorf("%s: %v", query, err)
			}
			return
		}
		after := handlers()
		r.note(query, after-between-(between-before))
	}
}

// plan asks SQLite for the plan of a statement, which counts as much when it goes through a
// large table.
func (r *reads) plan(t *testing.T, b backend) func(string, []driver.NamedValue) {
	t.Helper()
	return func(query string, named []driver.NamedValue) {
		if query == "begin" || strings.HasPrefix(query, "insert") || strings.HasSuffix(query, "1 = 0") {
			return
		}
		args := make([]any, len(named))
		for i, v := range named {
			args[i] = v.Value
		}
		rows, err := b.QueryContext(context.Background(), "explain query plan "+query, args...)
		if err != nil {
			t.Errorf("%s: %v", query, err)
			return
		}
		defer func() { _ = rows.Close() }()
		scanned, made := 0, 0 // m is a table, or a subquery that is made first
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Error(err)
			}
			switch {
			case detail == "CO-ROUTINE m" || detail == "MATERIALIZE m":
				made++
			case detail == "SCAN m" || strings.HasPrefix(detail, "SCAN ") && strings.HasSuffix(detail, "messages"):
				scanned++
			}
		}
		if err := rows.Err(); err != nil {
			t.Error(err)
		}
		if scanned > made {
			r.note(query, math.MaxInt)
		} else {
			r.note(query, 0)
		}
	}
}

// Whatever is known or believed of the tables, no statement of the running transport reads
// more than a few times what it is about: not the log, and not what is left of it.
func TestStatementsReadLittle(t *testing.T) {
	t.Parallel()
	const n, most = 25_000, 23_000 // a claim of 2,000 messages goes through some temporary tables of as many rows, and through the open gaps
	for name, open := range backends {
		for _, statistics := range []string{"none", "stale", "fresh"} {
			t.Run(name+"/"+statistics, func(t *testing.T) {
				t.Parallel()
				b := open(t)
				b.cfg.Retention = time.Hour
				near := testsql.NewTransport(t, b.DB, b.cfg)
				analyze := b.statistics(t)
				if statistics == "stale" { // few messages, and all of another topic
					publish(t, near, "b", numbers(1, 10)...)
					analyze()
				}
				for _, s := range []transports.Subscription{
					{Name: "exact", Topics: []string{"a"}, Concurrency: 1},
					{Name: "several", Topics: []string{"a", "b"}, Concurrency: 1},
					{Name: "words", Topics: []string{"*"}, Concurrency: 1},
				} {
					if err := near.DeclareSubscription(t.Context(), s, tsql.FromNow); err != nil {
						t.Fatal(err)
					}
				}
				publish(t, near, "a", numbers(1, 2000)...)
				execute(t, b, "update "+b.table("messages")+" set published_ms = 1")
				open, rolledBack := b.lateComer(t, near)
				for i := 2000; i < n; i += 1000 {
					batch := outgoing("a", numbers(i, i+999)...)
					for j := range batch {
						if j%10 == 0 {
							batch[j].Topic = "other." + strconv.Itoa(j)
						}
					}
					if err := near.PublishBatch(t.Context(), batch); err != nil {
						t.Fatal(err)
					}
				}
				rolledBack()
				if _, _, err := near.Log().Settled(t.Context()); err != nil {
					t.Fatal(err)
				}
				if statistics == "fresh" {
					analyze()
				}
				r := &reads{most: make(map[string]int), seen: make(map[string]int)}
				tr := testsql.NewTransport(t, r.watched(t, b), b.cfg)
				for _, s := range []string{"exact", "several", "words"} {
					ctx, stop := context.WithCancel(t.Context())
					ch := subscribe(ctx, t, tr, s, 100, map[string][]string{"exact": {"a"}, "several": {"a", "b"}, "words": {"*"}}[s]...)
					for i := range 3000 {
						msg := receive(t, ch)
						if i%100 == 0 {
							if err := tr.Requeue(t.Context(), s, msg, 0); err != nil {
								t.Error(err)
							}
						}
						msg.Ack()
						if i == 1000 {
							open()
						}
					}
					stop()
				}
				if err := tr.Close(); err != nil {
					t.Error(err)
				}
				r.mu.Lock()
				defer r.mu.Unlock()
				if len(r.most) < 10 {
					t.Errorf("only %d statements were seen", len(r.most))
				}
				for _, statement := range slices.Sorted(maps.Keys(r.most)) {
					if rows := r.most[statement]; rows > most {
						t.Errorf("%d rows are read by %.1200s", rows, statement)
					}
				}
			})
		}
	}
}

// lateComer opens a transaction with an event, and one that is rolled back by the second
// function; the first one commits the event, which is late by then.
func (b backend) lateComer(t *testing.T, tr *tsql.Transport) (late, rollBack func()) {
	t.Helper()
	if b.cfg.Dialect == tsql.SQLite {
		return func() {}, func() {}
	}
	open, rolledBack := begin(t, b.DB), begin(t, b.DB)
	publishTx(t, tr, open, "a", "late")
	publishTx(t, tr, rolledBack, "a", "never")
	return sync.OnceFunc(func() { commit(t, open) }), func() {
		if err := rolledBack.Rollback(); err != nil {
			t.Error(err)
		}
	}
}

// statistics keeps the database from making statistics of the tables by itself, and returns
// what makes them.
func (b backend) statistics(t *testing.T) (analyze func()) {
	t.Helper()
	var before, analyzing []string
	for _, table := range []string{"messages", "subscriptions", "bindings", "claims", "deliveries", "gaps", "late"} {
		name := b.table(table)
		switch b.cfg.Dialect {
		case tsql.Postgres:
			before = append(before, fmt.Sprintf("alter table %s set (autovacuum_enabled = false)", name))
			analyzing = append(analyzing, "analyze "+name)
		case tsql.MySQL:
			before = append(before, fmt.Sprintf("alter table %s stats_auto_recalc = 0", name))
			analyzing = append(analyzing, "analyze table "+name)
		default:
			analyzing = append(analyzing, "analyze "+name)
		}
	}
	for _, statement := range before {
		execute(t, b, statement)
	}
	return func() {
		for _, statement := range analyzing {
			execute(t, b, statement)
		}
	}
}
