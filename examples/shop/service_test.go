package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/events"
)

func TestRolesInProcessesOfTheirOwn(t *testing.T) {
	t.Parallel()
	cfg := newConfig(t, "-role", "worker")
	workers := []*service{startShop(t, cfg), startShop(t, cfg)}
	cfg.roles = []string{roleAPI}
	shop := startShop(t, cfg)
	customer := post(t, shop, "/customers", ada).CustomerID
	for range 20 {
		post(t, shop, "/orders", fmt.Sprintf(`{"customerId":%d,"items":[{"productId":1,"quantity":1}]}`, customer))
	}
	until(t, "the work", func() bool {
		return count(t, shop.db, `select reserved from shop_stock where product_id = 1`) >= 20 &&
			count(t, shop.db, `select count(*) from shop_emails where kind = 'confirmation'`) >= 20
	})
	if n := count(t, shop.db, `select count(*) from shop_reservations`); n != 20 {
		t.Errorf("%d reservations, want 20", n)
	}
	if code, _ := request(t, workers[0], http.MethodPost, "/customers", ada); code != http.StatusNotFound {
		t.Errorf("a worker takes customers: %d", code)
	}
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/readyz/bus": 200, "/readyz/transport": 200, "/readyz/outbox": 404} {
		if code, body := request(t, workers[1], http.MethodGet, path, ""); code != want {
			t.Errorf("worker: %s: %d %s", path, code, body)
		}
	}
	if code, _ := request(t, shop, http.MethodGet, "/readyz/bus", ""); code != http.StatusNotFound {
		t.Errorf("the API has a bus to check: %d", code)
	}
}

func TestRelayIsReadyWhileNothingWaitsForLong(t *testing.T) {
	t.Parallel()
	s := startShop(t, newConfig(t, "-transport", "memory://"))
	if code, body := request(t, s, http.MethodGet, "/readyz/outbox", ""); code != http.StatusOK {
		t.Errorf("%d %s", code, body)
	}
	post(t, s, "/customers", ada)
	until(t, "the welcome", func() bool { return count(t, s.db, `select count(*) from shop_emails`) == 1 })

	stopped := openShop(t, newConfig(t, "-transport", "memory://", "-outbox-age", "1ns")) // its relay does not run
	if err := stopped.relay.Declare(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := &orders{db: stopped.db, ob: stopped.ob}
	if _, err := o.register(t.Context(), customer{Name: "Ada", Email: "ada@example.com"}); err != nil {
		t.Fatal(err)
	}
	until(t, "the age", func() bool {
		age, err := stopped.oldestEvent(t.Context())
		return err == nil && age > stopped.cfg.outboxAge
	})
}

var addressLine = regexp.MustCompile(`address=http://(\S+)`)

// A signal ends the context of run.
func TestSignalEndsTheProgramCleanly(t *testing.T) {
	t.Parallel()
	ctx, signal := context.WithCancel(t.Context())
	defer signal()
	var stderr output
	ended := make(chan int)
	cfg := newConfig(t)
	go func() { ended <- run(ctx, []string{"-addr", "127.0.0.1:0", "-db", cfg.db}, noEnv, io.Discard, &stderr) }()
	until(t, "the opening", func() bool { return addressLine.MatchString(stderr.String()) })
	signal()
	if code := <-ended; code != 0 || !strings.Contains(stderr.String(), "the shop closes") {
		t.Errorf("exit status %d: %s", code, &stderr)
	}
}

func TestDatabaseThatIsAwayIsNotReady(t *testing.T) {
	t.Parallel()
	s := startShop(t, newConfig(t, "-role", "api"))
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
	if code, body := request(t, s, http.MethodGet, "/readyz", ""); code != http.StatusServiceUnavailable {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := request(t, s, http.MethodGet, "/livez", ""); code != http.StatusOK {
		t.Errorf("live: %d", code)
	}
	if code, body := request(t, s, http.MethodPost, "/customers", ada); code != http.StatusInternalServerError || strings.Contains(body, "sql") {
		t.Errorf("%d %s", code, body)
	}
}

func TestProgramFailsWhenItCantStart(t *testing.T) {
	t.Parallel()
	s := startShop(t, newConfig(t, "-role", "api"))
	var stderr output
	args := []string{"-addr", s.listener.Addr().String(), "-db", s.cfg.db} // it is taken
	if code := run(t.Context(), args, noEnv, io.Discard, &stderr); code != exitFailed || !strings.Contains(stderr.String(), "listen tcp") {
		t.Errorf("exit status %d: %s", code, &stderr)
	}
}

func TestEventsOfOtherShopsArePassedOver(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]int{"shop": 1, "other": 0} {
		called := 0
		h := only("shop")(func(*message.Message) ([]*message.Message, error) {
			called++
			return nil, nil
		})
		msg := message.NewMessage("1", nil)
		msg.SetContext(events.WithMetadata(t.Context(), &events.Metadata{ID: "1", Source: source}))
		if _, err := h(msg); err != nil || called != want {
			t.Errorf("%s: %d calls, %v", source, called, err)
		}
	}
}

// The provider takes an e-mail once, whatever it answers.
func TestMailIsAcceptedOnce(t *testing.T) {
	t.Parallel()
	s := openShop(t, newConfig(t))
	e := events.OrderCreated{OrderID: 1, CustomerID: 1}
	ctx := events.WithMetadata(t.Context(), &events.Metadata{ID: "1", Source: "shop"})
	m := &mailer{db: s.db, failures: 1}
	for known := false; !known; {
		err := m.confirm(ctx, e)
		if !errors.Is(err, errMailRefused) && !errors.Is(err, errMailUnsure) {
			t.Fatalf("error %v", err)
		}
		known = errors.Is(err, errMailUnsure)
		if n := count(t, s.db, `select count(*) from shop_emails`); (n == 1) != known {
			t.Fatalf("%d e-mails after %v", n, err)
		}
	}
	m.failures = 0
	if err := m.confirm(ctx, e); err != nil {
		t.Error(err)
	}
	if n := count(t, s.db, `select count(*) from shop_emails`); n != 1 {
		t.Errorf("%d e-mails, want 1", n)
	}
	other := events.WithMetadata(t.Context(), &events.Metadata{ID: "2", Source: "shop"})
	if err := m.confirm(other, e); err != nil || count(t, s.db, `select count(*) from shop_emails`) != 2 {
		t.Errorf("another event is another e-mail: %v", err)
	}
}
