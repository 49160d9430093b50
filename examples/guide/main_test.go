package guide

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline is how long a test waits for what comes soon.
const deadline = 2 * time.Minute

func check(err error) {
	if err != nil {
		panic(err)
	}
}

var ada = events.CustomerCreated{CustomerID: 42, CustomerName: "Ada", Email: "ada@example.com"}

func newOrder(id int64) events.OrderCreated {
	return events.OrderCreated{OrderID: id, CustomerID: 42, Items: []events.OrderItem{{ProductID: 7, Quantity: 1}}}
}

// world is a bus on memory, for examples.
type world struct {
	*bus.Bus
	broker    *memory.Broker
	transport *memory.Transport
}

func newWorld(cfg bus.Config) *world {
	broker, err := memory.NewBroker(memory.Config{})
	check(err)
	cfg.Source = "shop"
	w := &world{broker: broker, transport: broker.Connect()}
	w.Bus, err = bus.New(w.transport, cfg)
	check(err)
	return w
}

// idle waits until everything is handled or poisoned.
func (w *world) idle() {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	check(w.broker.WaitIdle(ctx))
}

func (w *world) end() {
	check(w.Shutdown(context.Background()))
	check(w.transport.Close())
}

// openSQLite opens a database in a file that remove deletes.
func openSQLite() (db *sql.DB, remove func()) {
	dir, err := os.MkdirTemp("", "guide")
	check(err)
	db, err = sql.Open("sqlite", "file:"+filepath.ToSlash(filepath.Join(dir, "shop.db"))+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_txlock=immediate")
	check(err)
	return db, func() {
		check(db.Close())
		check(os.RemoveAll(dir))
	}
}

// unique returns a name that nothing else at a server has.
func unique(name string) string { return name + "-" + strings.ToLower(rand.Text()) }

func mustClose(t *testing.T, tr transports.Transport) {
	t.Helper()
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// receive returns the next value, or ends the test when none comes.
func receive[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(deadline):
		t.Fatal("nothing comes")
		panic("unreachable")
	}
}

// eventually waits for what nothing signals.
func eventually(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come to be")
		}
	}
}

func printWelcome(_ context.Context, e events.CustomerCreated) error {
	fmt.Println("welcome,", e.Email)
	return nil
}
