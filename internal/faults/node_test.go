package faults_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
)

// While the node is down on which the queues were declared, and which leads them, new
// subscriptions start, and retried and delayed events arrive: nothing that is shared lives on one node.
func TestOneNodeOfThreeIsDown(t *testing.T) {
	t.Parallel()
	c := testserver.StartRabbitMQCluster(t, 3)
	first, second := c.Nodes()[0], c.Nodes()[1]
	subscription := func(name string) transports.Subscription {
		return transports.Subscription{Name: name, Topics: []string{"order.placed"}, Concurrency: 10}
	}
	seed := open(t, first.URL())
	if _, err := seed.Subscribe(t.Context(), subscription("shop.old")); err != nil {
		t.Fatal(err)
	}
	first.Kill()

	ctx := withPatience(t)
	tr := open(t, second.URL())
	publisher, requeuer := tr.(transports.BatchPublisher), tr.(transports.Requeuer) //nolint:forcetypeassert // it panics, as it should
	received := make(chan string, 100)
	for _, name := range []string{"shop.old", "shop.new"} {
		in, err := tr.Subscribe(ctx, subscription(name))
		if err != nil {
			t.Fatalf("subscribe %s: %v", name, err)
		}
		go func() {
			for msg := range in {
				received <- name + " " + msg.UUID
				msg.Ack()
			}
		}()
	}
	if err := requeuer.Requeue(ctx, "shop.old", newMessage(ctx, "order.placed", "retried"), time.Second); err != nil {
		t.Fatal(err)
	}
	if err := publisher.PublishBatch(ctx, []transports.Outgoing{
		{Topic: "order.placed", Message: newMessage(ctx, "order.placed", "delayed"), Delay: time.Second},
		{Topic: "nobody", Message: newMessage(ctx, "order.placed", "unrouted"), Delay: time.Second},
		{Topic: "order.placed", Message: newMessage(ctx, "order.placed", "behind it"), Delay: time.Second},
	}); err != nil {
		t.Fatal(err)
	}
	missing := map[string]bool{"shop.old retried": true}
	for _, name := range []string{"shop.old", "shop.new"} {
		missing[fmt.Sprint(name, " delayed")], missing[fmt.Sprint(name, " behind it")] = true, true
	}
	for len(missing) > 0 {
		select {
		case got := <-received:
			delete(missing, got)
		case <-ctx.Done():
			t.Fatalf("not received: %v", missing)
		}
	}
	remover := tr.(transports.SubscriptionRemover) //nolint:forcetypeassert // as above
	if err := remover.RemoveSubscription(ctx, "shop.new"); err != nil {
		t.Error(err)
	}
}
