package eventstoretest

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/gotidings/tidings/eventstore"
	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/rabbitmq"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// childEnv has the order of a child: this program again, which replays until it is killed.
const childEnv = "EVENTSTORETEST_CHILD"

type order struct {
	Driver, DSN, Schema, Prefix, Replay string
	Broker                              string // URL, when the replay goes to RabbitMQ
}

// child goes on with a replay, and prints how many events are sent.
func child() {
	if err := replayAsChild(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func replayAsChild(ctx context.Context) error {
	var o order
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &o); err != nil {
		return err
	}
	db, err := sql.Open(o.Driver, o.DSN)
	if err != nil {
		return err
	}
	tr, err := tsql.New(ctx, db, tsql.Config{Schema: o.Schema, Prefix: o.Prefix})
	if err != nil {
		return err
	}
	store, err := eventstore.New(ctx, eventstore.Config{Log: tr})
	if err != nil {
		return err
	}
	var target transports.Transport = tr
	if o.Broker != "" {
		if target, err = rabbitmq.Open(ctx, rabbitmq.Config{URLs: []string{o.Broker}}); err != nil {
			return err
		}
	}
	p, err := store.Resume(ctx, target, o.Replay, eventstore.Control{Batch: 10, OnProgress: func(p eventstore.Progress) { fmt.Println(p.Sent) }})
	if err == nil && p.Done {
		fmt.Println("done")
	}
	return err
}

// A replay that is killed, again and again, goes on where it was: each event arrives once,
// in order.
func TestReplayIsKilled(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, driver := range map[string]string{"postgres": "pgx", "mariadb": "mysql", "sqlite": "sqlite"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, databases[name], eventstore.Config{})
			const n = 1000
			var batch []transports.Outgoing
			for i := range n {
				batch = append(batch, event("a", fmt.Sprint(i)))
			}
			w.publish(t, batch...)
			if err := w.log.DeclareSubscription(t.Context(), transports.Subscription{Name: "model", Topics: []string{"none"}, Concurrency: 1}, tsql.FromNow); err != nil {
				t.Fatal(err)
			}
			first := errors.New("enough")
			ctx, cancel := context.WithCancelCause(t.Context())
			_, err := w.store.Replay(ctx, w.target, eventstore.Replay{ID: "r", Subscription: "model", Control: eventstore.Control{Batch: 1, Rate: 1, OnProgress: func(eventstore.Progress) { cancel(first) }}})
			if !errors.Is(err, first) {
				t.Fatal(err)
			}
			text, err := json.Marshal(order{Driver: driver, DSN: w.dsn(t), Schema: w.cfg.Schema, Prefix: w.cfg.Prefix, Replay: "r"})
			if err != nil {
				t.Fatal(err)
			}
			kills := 0
			for {
				cmd := exec.CommandContext(t.Context(), self)
				cmd.Env = append(os.Environ(), childEnv+"="+string(text))
				var stderr strings.Builder
				cmd.Stderr = &stderr
				out, err := cmd.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				lines := bufio.NewScanner(out)
				seen, done := 0, false
				for lines.Scan() {
					done = done || lines.Text() == "done"
					if seen++; seen == 3+kills && kills < 6 { // it goes on with the next batch meanwhile
						if err := cmd.Process.Kill(); err != nil {
							t.Fatal(err)
						}
						kills++
					}
				}
				err = cmd.Wait()
				if done {
					break
				}
				if err == nil || seen == 0 {
					t.Fatalf("the child ended: %v\n%s", err, &stderr)
				}
			}
			if kills < 6 {
				t.Errorf("killed %d times", kills)
			}
			for i, msg := range receive(t, w.subscribe(t, "model", "none"), n) {
				if msg.UUID != fmt.Sprint(i) {
					t.Fatalf("message %d is %s", i, msg.UUID)
				}
			}
			w.wantEmpty(t, "model")
		})
	}
}

// dsn is that of the database, for a child.
func (w *world) dsn(t *testing.T) string {
	t.Helper()
	if s := testsql.Servers[w.cfg.Dialect]; s != nil {
		return s.DSN(t)
	}
	var file string
	if err := w.db.QueryRowContext(t.Context(), `select file from pragma_database_list where name = 'main'`).Scan(&file); err != nil {
		t.Fatal(err)
	}
	return testsql.SQLiteDSN(file)
}
