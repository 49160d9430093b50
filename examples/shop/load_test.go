package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/gotidings/tidings/internal/testserver"
)

// put runs the program with -load and checks its end.
func put(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr output
	if code := run(t.Context(), append([]string{"-load", "50"}, args...), noEnv, &stdout, &stderr); code != 0 {
		t.Errorf("exit status %d", code)
	}
	lines := strings.Split(strings.TrimSuffix(stdout.String(), "\n"), "\n")
	if last := lines[len(lines)-1]; last != "orders=50 reserved=50 emails=50 lost=0 doubled=0" {
		t.Errorf("the last line is %q", last)
	}
	greeted := regexp.MustCompile(`greeted: (\d+) of (\d+)`).FindStringSubmatch(stdout.String())
	if len(greeted) != 3 || greeted[1] != greeted[2] || greeted[1] == "0" {
		t.Errorf("promotions: %v", greeted)
	}
	if stderr.String() != "" {
		t.Errorf("errors: %s", &stderr)
	}
	return stdout.String()
}

func TestLoadEmbedded(t *testing.T) {
	t.Parallel()
	out := put(t)
	if !strings.Contains(out, "database sqlite, transport the database") {
		t.Errorf("output: %s", out)
	}
	put(t, "-transport", "memory://")
}

func TestLoadOnServers(t *testing.T) {
	t.Parallel()
	postgres, rabbitMQ := schemaOf(t, testserver.Postgres(t)), testserver.RabbitMQ(t)
	put(t, "-db", postgres, "-transport", rabbitMQ)
	put(t, "-db", postgres)
}

func TestLoadOnMySQL(t *testing.T) {
	t.Parallel()
	put(t, "-db", databaseOf(t, testserver.MySQL(t)), "-vip-after", "3")
}

// schemaOf makes a schema for the test, and returns the URL with it.
func schemaOf(t *testing.T, server string) string {
	t.Helper()
	name := "shop_test_" + strings.ToLower(rand.Text())
	around(t, server, "create schema "+name, "drop schema "+name+" cascade")
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Set("search_path", name)
	u.RawQuery = query.Encode()
	return u.String()
}

// databaseOf makes a database for the test, and returns the URL with it.
func databaseOf(t *testing.T, server string) string {
	t.Helper()
	name := "shop_test_" + strings.ToLower(rand.Text())
	around(t, server, "create database "+name, "drop database "+name)
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// around runs a statement now, and another one after the test.
func around(t *testing.T, server, before, after string) {
	t.Helper()
	_, driver, dsn, err := dataSource(server)
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, err := db.ExecContext(context.Background(), after)
		if err := errors.Join(err, db.Close()); err != nil {
			t.Error(err)
		}
	})
}

// Two runs in one shop: each counts its own orders.
func TestLoadCountsItsOwnRun(t *testing.T) {
	t.Parallel()
	cfg := newConfig(t)
	put(t, "-db", cfg.db)
	put(t, "-db", cfg.db, "-name", "shop")
}

// An interrupt ends the placing; what was placed is handled and counted.
func TestLoadThatIsInterruptedFinishesWhatItHas(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var stdout, stderr output
	ended := make(chan int)
	go func() { ended <- run(ctx, []string{"-load", "5000"}, noEnv, &stdout, &stderr) }()
	until(t, "an order", func() bool { return regexp.MustCompile(`\n  [1-9]\d* of 5000 orders`).MatchString(stdout.String()) })
	interrupt()
	if code := <-ended; code != exitFailed {
		t.Errorf("exit status %d", code)
	}
	if !regexp.MustCompile(`\norders=[1-9]\d* reserved=\d+ emails=\d+ lost=0 doubled=0\n$`).MatchString(stdout.String()) {
		t.Errorf("output: %s", &stdout)
	}
}

func TestReconciliationFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := openShop(t, newConfig(t))
	l := &load{cfg: s.cfg, run: "load-x", service: s, clients: newClients("", "load-x")}
	exec := func(statement string) {
		t.Helper()
		if err := s.db.exec(t.Context(), s.db, statement); err != nil {
			t.Fatal(err)
		}
	}
	is := func(what string, want tally) {
		t.Helper()
		got, err := l.reconcile(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s: %v (%+v), want %v (%+v)", what, got, got, want, want)
		}
	}
	is("nothing", tally{})
	exec(`insert into shop_customers (id, name, email) values (1, 'A', 'load-x-0@example.com'), (2, 'B', 'load-y-0@example.com')`)
	exec(`insert into shop_orders (id, customer_id, total) values (1, 1, '1'), (2, 2, '1')`)
	exec(`insert into shop_order_items (order_id, line, product_id, quantity) values (1, 0, 7, 1), (1, 1, 7, 1)`)
	is("an order, and one of another run", tally{orders: 1, lost: 2}) // itself, and the count of its customer
	exec(`update shop_customers set orders = 1 where id = 1`)
	exec(`insert into shop_emails values ('k1', 'confirmation', 1, 1)`)
	exec(`insert into shop_reservations (order_id, line, product_id, quantity) values (1, 0, 7, 1)`)
	is("half reserved", tally{orders: 1, emails: 1, lost: 1})
	exec(`insert into shop_reservations (order_id, line, product_id, quantity) values (1, 0, 7, 1)`)
	is("half of it twice", tally{orders: 1, emails: 1, lost: 1, doubled: 1})
	exec(`update shop_reservations set line = 1 where id = 2`)
	good := tally{orders: 1, reserved: 1, emails: 1}
	is("all", good)
	exec(`insert into shop_emails values ('k2', 'confirmation', 1, 1)`)
	is("two e-mails", tally{orders: 1, reserved: 1, doubled: 1})
	exec(`delete from shop_emails where idempotency_key = 'k2'`)

	l.clients.accepted[1], l.clients.accepted[99] = true, true
	is("accepted and not there", tally{orders: 1, reserved: 1, emails: 1, lost: 1})
	delete(l.clients.accepted, 99)

	l.cfg.vipAfter = 1
	is("not promoted", tally{orders: 1, reserved: 1, emails: 1, vips: 1, lost: 1})
	exec(`insert into shop_emails values ('v1', 'vip', 1, 0)`)
	is("greeted only", tally{orders: 1, reserved: 1, emails: 1, vips: 1, lost: 1})
	exec(`update shop_customers set vip = 1 where id = 1`)
	is("promoted", tally{orders: 1, reserved: 1, emails: 1, vips: 1, greeted: 1})
	exec(`insert into shop_emails values ('v2', 'vip', 1, 0)`)
	is("greeted twice", tally{orders: 1, reserved: 1, emails: 1, vips: 1, doubled: 1})
	exec(`update shop_customers set orders = 2 where id = 1`)
	exec(`delete from shop_emails where idempotency_key = 'v2'`)
	is("counted twice", tally{orders: 1, reserved: 1, emails: 1, vips: 1, greeted: 1, doubled: 1})
}
