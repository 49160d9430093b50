package sqltest

import (
	"net/url"
	"testing"
	"time"

	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports/sql/pgnotify"
)

// A process that polls once an hour hears of what another publishes, also after its
// connection was lost.
func TestNotify(t *testing.T) {
	t.Parallel()
	db, cfg := testsql.Postgres(t)
	cfg.PollInterval = time.Hour
	consumer := testsql.NewTransport(t, db, cfg)
	cfg.Notify = true
	publisher := testsql.NewTransport(t, db, cfg)
	ch := subscribe(t.Context(), t, consumer, "s", 1, "a")
	u, err := url.Parse(testsql.PostgresServer.URL())
	if err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, u.Host)
	u.Host = p.addr()
	listener, err := pgnotify.Listen(t.Context(), u.String(), consumer)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	publish(t, publisher, "a", "1")
	ackInOrder(t, ch, "1")
	// A poller that has been idle looks once a second all the same, so it is let fall
	// asleep first: the next look is at least half a second away.
	fastest := time.Hour
	for range 20 { // until the machine is not busy with something else
		<-time.After(1500 * time.Millisecond)
		began := time.Now()
		publish(t, publisher, "a", "2")
		ackInOrder(t, ch, "2")
		if fastest = min(fastest, time.Since(began)); fastest < 400*time.Millisecond {
			break
		}
	}
	if fastest > 400*time.Millisecond {
		t.Errorf("it took %s to hear of it", fastest)
	}
	p.setCut(true)
	publish(t, publisher, "a", "3")
	p.setCut(false)
	ackInOrder(t, ch, "3") // by what it looks for when it is connected again
	listener.Close()
}
