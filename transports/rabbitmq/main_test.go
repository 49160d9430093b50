package rabbitmq

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/gotidings/tidings/internal/testserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// brokerURL returns the URL of a broker for tests.
func brokerURL(t *testing.T) string {
	t.Helper()
	return testserver.RabbitMQ(t)
}
