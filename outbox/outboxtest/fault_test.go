package outboxtest

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gotidings/tidings/inbox"
	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/rabbitmq"
	tsql "github.com/gotidings/tidings/transports/sql"
)

var (
	faultOrders = flag.Int("fault-orders", 5000, "orders of the fault test on Postgres and RabbitMQ; the others have a fifth")
	faultCount  = flag.Int("faults", 32, "faults of each fault test")
	faultSeed   = flag.Uint64("fault-seed", 0, "repeat a run; 0: a new one")
)

var childFile = sync.OnceValues(func() (string, error) {
	file := filepath.Join(builds, "child")
	out, err := exec.Command("go", "build", "-o", file, "./child").CombinedOutput()
	if err != nil {
		return string(out), err
	}
	return file, nil
})

// child is a process of a role, which is started again when it is killed.
type child struct {
	args []string
	cmd  *exec.Cmd
	log  *tail
}

// tail keeps the end of what a process says.
type tail struct {
	mu   sync.Mutex // guards text
	text string
}

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	const most = 100_000
	l.text += string(p)
	l.text = l.text[max(0, len(l.text)-most):]
	return len(p), nil
}

var _ io.Writer = (*tail)(nil)

func (c *child) start(t *testing.T) {
	t.Helper()
	file, err := childFile()
	if err != nil {
		t.Fatalf("build: %v\n%s", err, file)
	}
	c.cmd = exec.Command(file, c.args...) //nolint:noctx // killed by the test
	c.cmd.Stdout, c.cmd.Stderr = c.log, c.log
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (c *child) end(t *testing.T, signal syscall.Signal) {
	t.Helper()
	_ = c.cmd.Process.Signal(signal)
	err := c.cmd.Wait()
	if signal == syscall.SIGTERM && err != nil {
		t.Errorf("%v ended with %v", c.args[:2], err)
	}
}

// shop is a system under test.
type shop struct {
	db       database
	server   *testserver.Database // of db; nil: it has none
	broker   *testserver.Broker   // nil: the consumers read the database
	children []*child
}

func (s *shop) add(t *testing.T, role string, n int) {
	t.Helper()
	c := &child{log: &tail{}, args: []string{"-role", role, "-driver", s.db.driver, "-dsn", s.db.dsn, "-n", fmt.Sprint(n)}}
	if s.broker != nil {
		c.args = append(c.args, "-broker", s.broker.URL())
	}
	c.start(t)
	s.children = append(s.children, c)
}

// prepare makes the tables and the subscriptions, so that nothing is published past them.
func (s *shop) prepare(t *testing.T) {
	t.Helper()
	for _, table := range []string{"orders (id bigint primary key)", "reserved (id bigint not null)", "confirmed (id bigint not null)"} {
		mustExec(t, s.db.DB, "create table "+table)
	}
	ob := newOutbox(t, s.db)
	newInbox(t, s.db, inbox.Config{})
	for name, topic := range map[string]string{"shop.reserve": "order.created", "shop.confirm": "order.reserved"} {
		sub := transports.Subscription{Name: name, Topics: []string{topic}, Concurrency: 1}
		if s.broker == nil {
			if err := ob.Transport().DeclareSubscription(t.Context(), sub, tsql.FromNow); err != nil {
				t.Fatal(err)
			}
			continue
		}
		tr, err := transports.Open(t.Context(), s.broker.URL())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ch, err := tr.Subscribe(ctx, sub)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		for range ch {
		}
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	}
	if s.broker != nil {
		// A broker that is killed within about a second after it has made a queue may lose
		// it, see the limits of package rabbitmq. One that is stopped has it on the disk.
		s.broker.Stop()
		s.broker.Start()
	}
}

// restart kills the database server and starts it again.
func (s *shop) restart(t *testing.T) {
	t.Helper()
	s.server.Kill()
	s.server.Start()
	s.db.SetMaxIdleConns(0) // those of the test are gone as well
	s.db.SetMaxIdleConns(20)
}

// disconnect ends the connections that the children have to the database.
func (s *shop) disconnect(t *testing.T) bool {
	t.Helper()
	switch s.db.dialect {
	case tsql.Postgres:
		mustExec(t, s.db.DB, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = current_setting('application_name') || ' child'")
	case tsql.MySQL:
		query := "select id from information_schema.processlist where db = database() and id <> connection_id() and command <> 'Sleep'"
		var version string
		if err := s.db.QueryRowContext(t.Context(), "select version()").Scan(&version); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(version, "MariaDB") { // MySQL's list fails while a statement has binary data in it (error 3854)
			query = "select processlist_id from performance_schema.threads where processlist_db = database() and processlist_id <> connection_id() and processlist_command <> 'Sleep'"
		}
		rows, err := s.db.QueryContext(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = rows.Close() }()
		var ids []int
		for rows.Next() {
			var id int
			if err := rows.Scan(&id); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			_, _ = s.db.ExecContext(t.Context(), fmt.Sprint("kill ", id)) // it may have gone by itself
		}
	default:
		return false
	}
	return true
}

// run produces n orders and does harm at counts of what is confirmed, then reconciles.
func (s *shop) run(t *testing.T, n, faults int) {
	t.Helper()
	seed := *faultSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // chance that can be repeated
	s.prepare(t)
	defer func() {
		for _, c := range s.children {
			if c.cmd.ProcessState == nil {
				c.end(t, syscall.SIGKILL)
			}
		}
		if t.Failed() {
			for _, c := range s.children {
				t.Logf("%v:\n%s", c.args[:2], c.log.text)
			}
		}
	}()
	s.add(t, "produce", n)
	if s.broker != nil {
		s.add(t, "relay", 0)
		s.add(t, "relay", 0)
	}
	s.add(t, "work", 0)
	s.add(t, "work", 0)
	began := time.Now()
	done := make(map[string]int)
	for i := range faults {
		s.progress(t, n*i/(faults+1))
		switch kind := random.IntN(10); {
		case kind == 0 && s.broker != nil && done["broker"] < 4 || i == faults/2 && s.broker != nil:
			s.broker.Kill()
			s.broker.Start()
			done["broker"]++
		case kind == 1 && s.server != nil && done["database"] < 4 || i == faults/3 && s.server != nil:
			s.restart(t)
			done["database"]++
		case kind <= 2 && s.disconnect(t):
			done["connections"]++
		default:
			c := s.children[random.IntN(len(s.children))]
			c.end(t, syscall.SIGKILL)
			c.start(t)
			done[c.args[1]]++
		}
	}
	s.progress(t, n)
	t.Logf("%d orders with the faults %v in %s", n, done, time.Since(began))
	s.reconcile(t, n)
}

// progress waits until so many orders have gone all the way.
func (s *shop) progress(t *testing.T, want int) {
	t.Helper()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	last, since := -1, time.Now()
	for {
		n := count(t, s.db.DB, "select count(distinct id) from confirmed")
		if n >= want {
			return
		}
		if n != last {
			last, since = n, time.Now()
		}
		if time.Since(since) > 2*deadline {
			s.explain(t)
			t.Fatalf("%d of %d are confirmed, and nothing has come for %s; orders %d, reserved %d", n, want, 2*deadline,
				count(t, s.db.DB, "select count(*) from orders"), count(t, s.db.DB, "select count(distinct id) from reserved"))
		}
		<-again.C
	}
}

// explain logs where events may be when nothing comes any more, and has the children print
// what their goroutines do.
func (s *shop) explain(t *testing.T) {
	t.Helper()
	for _, query := range []string{
		"select concat('log: frontier ', frontier, ' of ', (select max(id) from tidings_messages)) from tidings_log",
		"select concat('subscription ', name, ': id ', id, ', position ', position, ', late ', late_position, ', lease ', lease_ms) from tidings_subscriptions",
		"select concat('claim of ', subscription_id, ': ', first, ' to ', last, ', lease ', lease_ms) from tidings_claims",
		"select concat('deliveries of ', subscription_id, ' in state ', state, ': ', count(*), ', due ', min(due_ms)) from tidings_deliveries group by subscription_id, state",
		"select concat('gap: ', first, ' to ', last) from tidings_gaps",
	} {
		if err := s.logLines(t, query); err != nil {
			t.Logf("%s: %v", query, err)
		}
	}
	t.Logf("now %d", time.Now().UnixMilli())
	if s.broker != nil {
		t.Log(s.broker.Ctl("list_queues", "name", "messages_ready", "messages_unacknowledged", "consumers"))
	}
	for _, c := range s.children {
		_ = c.cmd.Process.Signal(syscall.SIGQUIT)
		_ = c.cmd.Wait()
	}
}

func (s *shop) logLines(t *testing.T, query string) error {
	t.Helper()
	rows, err := s.db.QueryContext(t.Context(), query)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for line := ""; rows.Next(); {
		if err := rows.Scan(&line); err != nil {
			return err
		}
		t.Log(line)
	}
	return rows.Err()
}

func (s *shop) reconcile(t *testing.T, n int) {
	t.Helper()
	// What is left is settled while the services run; then they stop, and are asked again.
	left := []string{"claims", "deliveries", "scheduled"}
	for _, table := range left {
		eventually(t, s.db.DB, 0, "select count(*) from tidings_"+table)
	}
	s.gapsClose(t)
	s.brokerEmpties(t)
	for _, c := range s.children {
		c.end(t, syscall.SIGTERM)
	}
	for _, table := range left {
		if n := count(t, s.db.DB, "select count(*) from tidings_"+table); n != 0 {
			t.Errorf("%d rows are left in %s", n, table)
		}
	}
	for _, table := range []string{"orders", "reserved", "confirmed"} {
		all, distinct, zero := count(t, s.db.DB, "select count(*) from "+table), count(t, s.db.DB, "select count(distinct id) from "+table), count(t, s.db.DB, "select count(*) from "+table+" where id = 0")
		if all != n || distinct != n || zero != 0 {
			t.Errorf("%s: %d rows of %d orders, %d of rolled back ones; want %d: lost %d, twice %d", table, all, distinct, zero, n, n-distinct, all-distinct)
		}
	}
	if s.broker == nil {
		return
	}
	tr, err := transports.Open(t.Context(), s.broker.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tr.Close() }()
	for _, name := range []string{"shop.reserve", "shop.confirm"} {
		until(t, name+" is empty", func() bool {
			d, err := tr.(*rabbitmq.Transport).Depth(t.Context(), name)
			return err == nil && d.Ready == 0 && d.InFlight <= 0 && d.Poisoned == 0
		})
	}
}

// brokerEmpties waits until no message is left in any queue, be it a second copy of one
// that has been handled, or one that waits in a delay tier. The broker counts what is in
// a queue every 5 seconds.
func (s *shop) brokerEmpties(t *testing.T) {
	t.Helper()
	if s.broker == nil {
		return
	}
	const counts = 6 * time.Second
	empty := time.Now()
	until(t, "all queues are empty", func() bool {
		for line := range strings.Lines(s.broker.Ctl("list_queues", "messages")) {
			if strings.TrimSpace(line) != "0" && strings.TrimSpace(line) != "" {
				empty = time.Now()
			}
		}
		return time.Since(empty) > counts
	})
}

// gapsClose waits until no id is missing any more. On Postgres that waits for every
// transaction of the server that was open then, other people's too.
func (s *shop) gapsClose(t *testing.T) {
	t.Helper()
	eventually(t, s.db.DB, 0, "select count(*) from tidings_gaps")
}

// fifth is for what has less time.
func fifth() int { return max(*faultOrders/5, 1) }

func TestFaultsPostgresRabbitMQ(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	t.Parallel()
	server := testserver.StartPostgres(t)
	db := database{dialect: tsql.Postgres, driver: "pgx", dsn: server.URL()}
	s := &shop{db: withName(t, db), server: server, broker: testserver.StartRabbitMQ(t)}
	s.run(t, *faultOrders, *faultCount)
}

// withName gives the connections of the test and those of its children names of their own.
func withName(t *testing.T, db database) database {
	t.Helper()
	name := unique()
	db.DB = openDB(t, db.driver, db.dsn+"&application_name="+name)
	db.dsn += "&application_name=" + name + "%20child"
	return db
}

func TestFaultsMySQLRabbitMQ(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	t.Parallel()
	server := testserver.StartMySQL(t)
	dsn := "root@tcp(" + server.Addr() + ")/test"
	s := &shop{db: database{openDB(t, "mysql", dsn), tsql.MySQL, "mysql", dsn}, server: server, broker: testserver.StartRabbitMQ(t)}
	s.run(t, fifth(), *faultCount/2)
}

func TestFaultsSQLite(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	t.Parallel()
	s := &shop{db: newSQLite(t)}
	s.run(t, fifth(), *faultCount/2)
}

// A process that dies between the commit and the relay loses nothing; one that dies before
// the commit has sent nothing.
func TestDiesBetweenCommitAndRelay(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		ob := newOutbox(t, db)
		c := &child{log: &tail{}, args: []string{"-role", "crash", "-driver", db.driver, "-dsn", db.dsn}}
		c.start(t)
		if err := c.cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the child ended with %v\n%s", err, c.log.text)
		}
		d := newDestination()
		runRelay(t, ob, outbox.RelayConfig{Name: "d", To: d})
		d.await(t, 1)
		commit(t, ob, ordered{N: 3})
		got := d.await(t, 2)
		if a, b := string(got[0].Message.Payload), string(got[1].Message.Payload); a != `{"id":1}` || b != `{"n":3}` {
			t.Errorf("sent %s and %s", a, b)
		}
	})
}
