package testserver_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/internal/testserver"
)

const queue = "kept"

// A cluster loses nothing that it has confirmed when the node that leads a queue is killed,
// and the node comes back.
func TestClusterSurvivesItsLeader(t *testing.T) {
	t.Parallel()
	c := testserver.StartRabbitMQCluster(t, 3)
	first := c.Nodes()[0]
	eventually(t, func() error { return publish(t, first, "1") })
	leader := c.Leader(first, queue)
	if leader == nil {
		t.Fatal("the queue has no leader")
	}
	leader.Kill()
	i := slices.Index(c.Nodes(), leader)
	other := c.Nodes()[(i+1)%3]
	eventually(t, func() error { return publish(t, other, "2") })
	c.Start(leader)
	eventually(t, func() error { return publish(t, leader, "3") })
}

// A node that is isolated answers its clients and knows nothing of the others, until the
// partition is healed.
func TestClusterIsPartitioned(t *testing.T) {
	t.Parallel()
	c := testserver.StartRabbitMQCluster(t, 3)
	nodes := c.Nodes()
	eventually(t, func() error { return publish(t, nodes[0], "1") })
	c.Isolate(nodes[0])
	if !answers(nodes[0].Addr()) {
		t.Error("clients don't reach the isolated node")
	}
	if err := publish(t, nodes[0], "2"); err == nil {
		t.Error("the isolated node confirms what no other node has")
	}
	eventually(t, func() error { return publish(t, nodes[1], "3") })
	c.Heal()
	eventually(t, func() error { return publish(t, nodes[0], "4") })
}

// A node that is paused keeps its connections and answers when it goes on.
func TestNodeIsPaused(t *testing.T) {
	t.Parallel()
	b := testserver.StartRabbitMQ(t)
	b.Pause()
	if err := publish(t, b, "1"); err == nil {
		t.Error("a paused node confirms")
	}
	b.Resume()
	eventually(t, func() error { return publish(t, b, "2") })
}

// eventually repeats what a cluster that chooses a leader may refuse.
func eventually(t *testing.T, do func() error) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		err := do()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// publish sends a message to a quorum queue and waits some seconds for the confirmation.
func publish(t *testing.T, b *testserver.Broker, body string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	config := amqp.Config{Dial: amqp.DefaultDial(5 * time.Second)}
	conn, err := amqp.DialConfig(b.URL(), config)
	if err != nil {
		return err
	}
	defer conn.CloseDeadline(time.Now().Add(time.Second)) //nolint:errcheck // the confirmation counts
	go func() { done <- publishOn(ctx, conn, body) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		_ = conn.CloseDeadline(time.Now())
		return errors.Join(<-done, ctx.Err())
	}
}

func publishOn(ctx context.Context, conn *amqp.Connection, body string) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if _, err := ch.QueueDeclare(queue, true, false, false, false, amqp.Table{"x-queue-type": "quorum"}); err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return err
	}
	confirmation, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", queue, true, false, amqp.Publishing{Body: []byte(body)})
	if err != nil {
		return err
	}
	ok, err := confirmation.WaitContext(ctx)
	if err == nil && !ok {
		err = errors.New("refused: " + strings.TrimSpace(body))
	}
	return err
}
