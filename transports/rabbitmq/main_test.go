package rabbitmq

import (
	"os"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// brokerURL returns the URL of a broker for tests.
func brokerURL(t *testing.T) string {
	t.Helper()
	if url := os.Getenv("RABBITMQ_URL"); url != "" {
		return url
	}
	return "amqp://guest:guest@127.0.0.1:5672/"
}

// raw is a client that knows nothing of this package.
type raw struct {
	*testing.T
	ch *amqp.Channel
}

// onBroker returns a client whose connection the test's end closes.
func onBroker(t *testing.T) raw {
	t.Helper()
	conn, err := amqp.Dial(brokerURL(t))
	if err != nil {
		t.Fatal(err)
	}
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return raw{t, ch}
}

func (r raw) exchangeDelete(name string) {
	r.Helper()
	if err := r.ch.ExchangeDelete(name, false, false); err != nil {
		r.Error(err)
	}
}
