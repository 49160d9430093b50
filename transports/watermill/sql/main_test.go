package sql

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wmsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	_ "github.com/go-sql-driver/mysql"
	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"

	"github.com/gotidings/tidings/transports"
	adapter "github.com/gotidings/tidings/transports/watermill"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is long: on PostgreSQL any open transaction of the whole server that has
// written something holds watermill-sql's deliveries up.
const patience = 2 * time.Minute

// server is a database to test on.
type server struct {
	dialect Dialect
	env     string // variable that names it
	local   string // where it is looked for otherwise
	remedy  string
}

var servers = map[string]server{
	"postgres": {
		Postgres, "POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/test?sslmode=disable",
		"docker compose --profile sql up -d postgres, or apt-get install postgresql, or set POSTGRES_URL",
	},
	"mysql": {
		MySQL, "MYSQL_URL", "mysql://root@127.0.0.1:3306/test",
		"docker compose --profile sql up -d mariadb, or apt-get install mariadb-server, or set MYSQL_URL",
	},
}

// space is a test's place in a database. What is made there is deleted at its end.
type space struct {
	server
	db     *sql.DB
	url    *url.URL // in the scheme of this package
	prefix string   // of every topic

	mu     sync.Mutex
	topics map[string]bool
}

func newSpace(t *testing.T, s server) *space {
	t.Helper()
	rawURL := os.Getenv(s.env)
	if rawURL == "" {
		rawURL = s.local
	}
	u, err := url.Parse("watermill+" + rawURL)
	if err != nil {
		t.Fatal(err)
	}
	target, err := parse(u)
	if err != nil {
		t.Fatal(err)
	}
	driver, err := target.driver(sql.Drivers())
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open(driver, target.dsn)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := db.PingContext(ctx); err != nil {
		_ = db.Close()
		if os.Getenv("REQUIRE_SERVICES") == "1" {
			t.Fatalf("no database: %s", s.remedy)
		}
		t.Skipf("SKIPPED, no database: %s", s.remedy)
	}
	sp := &space{server: s, db: db, url: u, prefix: "t" + uuid.NewString()[:8] + "_", topics: make(map[string]bool)}
	t.Cleanup(func() { sp.clean(t) })
	return sp
}

func (sp *space) clean(t *testing.T) {
	t.Helper()
	quote := "`"
	if sp.dialect == Postgres {
		quote = `"`
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	for topic := range sp.topics {
		for _, table := range []string{"watermill_", "watermill_offsets_"} {
			if _, err := sp.db.ExecContext(ctx, "DROP TABLE IF EXISTS "+quote+table+topic+quote); err != nil {
				t.Errorf("clean up: %v", err)
			}
		}
	}
	if err := sp.db.Close(); err != nil {
		t.Error(err)
	}
}

// topic returns the test's own topic of a name.
func (sp *space) topic(name string) string {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.topics[sp.prefix+name] = true
	return sp.prefix + name
}

// open opens a transport that the test's end closes.
func (sp *space) open(t *testing.T, cfg Config) *adapter.Transport {
	t.Helper()
	cfg.DB, cfg.Dialect, cfg.PollInterval = sp.db, sp.dialect, 10*time.Millisecond
	tr, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

// plain makes a publisher and a subscriber of watermill-sql, as a team has them.
func (sp *space) plain(t *testing.T, group string) (*wmsql.Publisher, *wmsql.Subscriber) {
	t.Helper()
	p, err := wmsql.NewPublisher(sp.db, wmsql.PublisherConfig{SchemaAdapter: schema(sp.dialect, ""), AutoInitializeSchema: true}, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := wmsql.NewSubscriber(sp.db, wmsql.SubscriberConfig{
		ConsumerGroup: group, SchemaAdapter: schema(sp.dialect, ""), OffsetsAdapter: offsets(sp.dialect),
		InitializeSchema: true, PollInterval: 10 * time.Millisecond,
	}, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	return p, s
}

func subscribe(ctx context.Context, t *testing.T, tr transports.Transport, name, topic string) <-chan *message.Message {
	t.Helper()
	ch, err := tr.Subscribe(ctx, transports.Subscription{Name: name, Topics: []string{topic}, Concurrency: 1, Ordered: true})
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// receive takes the next message and wants it to have this id.
func receive(t *testing.T, ch <-chan *message.Message, id string) *message.Message {
	t.Helper()
	select {
	case msg, ok := <-ch:
		if !ok {
			t.Fatal("the channel is closed")
		}
		if msg.UUID != id {
			t.Fatalf("received %q; want %q", msg.UUID, id)
		}
		return msg
	case <-time.After(patience):
		t.Fatalf("%s does not come", id)
		return nil
	}
}

func publish(t *testing.T, p message.Publisher, topic string, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := p.Publish(topic, message.NewMessage(id, fmt.Appendf(nil, `{"id":%q}`, id))); err != nil {
			t.Fatal(err)
		}
	}
}

func contains(t *testing.T, err error, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in: %v", want, err)
		}
	}
}
