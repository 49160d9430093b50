package rabbitmq

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
)

// logged keeps the warnings of a transport.
type logged struct {
	mu    sync.Mutex
	lines []string
}

func (l *logged) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(line))
	return len(line), nil
}

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// with returns the lines that contain a string.
func (l *logged) with(text string) (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			lines = append(lines, line)
		}
	}
	return lines
}

// impatientBroker is a broker of the test's own that takes back what is unsettled for two
// seconds, from consumers that do not ask for more. Before 4.3 it looks every second.
func impatientBroker(t *testing.T) string {
	t.Helper()
	broker := testserver.StartRabbitMQ(t)
	broker.Ctl("eval", "application:set_env(rabbit, consumer_timeout, 2000), application:set_env(rabbit, channel_tick_interval, 1000).")
	return broker.URL()
}

func openAt(t *testing.T, url string, log *logged) *Transport {
	t.Helper()
	cfg := Config{URLs: []string{url}}
	if log != nil {
		cfg.Logger = log.logger()
	}
	tr := mustOpen(t, cfg)
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return tr
}

func subscribeAt(t *testing.T, tr *Transport, s transports.Subscription) <-chan *message.Message {
	t.Helper()
	ch, err := tr.Subscribe(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func publishAt(t *testing.T, tr *Transport, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := tr.Publish("a", newMessage(t, id)); err != nil {
			t.Fatal(err)
		}
	}
}

// await returns the next message. A consumer timeout takes time.
func await(t *testing.T, ch <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case msg, ok := <-ch:
		if !ok {
			t.Fatal("the channel is closed; want a message")
		}
		return msg
	case <-time.After(2 * time.Minute):
		t.Fatal("no message comes")
		return nil
	}
}

// What the broker takes back, and gives to another process, is not handed to a handler here.
func TestConsumerTimeout(t *testing.T) {
	t.Parallel()
	url := impatientBroker(t)
	var log logged
	slow, other := openAt(t, url, &log), openAt(t, url, nil)
	s := transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 2}
	held := subscribeAt(t, slow, s)
	publishAt(t, slow, "1", "2", "3")
	first, second := await(t, held), await(t, held) // the third one is in the buffer
	take := subscribeAt(t, other, s)
	for range 3 {
		await(t, take).Ack()
	}
	select {
	case msg := <-held:
		t.Errorf("received %s, which another process has handled", msg.UUID)
	case <-time.After(200 * time.Millisecond):
	}
	first.Ack()
	second.Ack()
	publishAt(t, other, "4", "5", "6", "7")
	kept := await(t, take) // so the slow one has to consume again for the rest
	again := await(t, take)
	for range 2 {
		msg := await(t, held)
		if msg.UUID <= "3" {
			t.Errorf("received %s, which another process has handled", msg.UUID)
		}
		msg.Ack()
	}
	kept.Ack()
	again.Ack()
	if lines := log.with("has lost its consumer"); len(lines) != 1 || len(log.lines) != 1 {
		t.Errorf("the log has %q; want once why the consumer was lost", log.lines)
	}
}

// What is in the client's buffer when the broker cancels the consumer, as RabbitMQ 4.3 does, is
// dropped.
func TestCancelledConsumerDropsItsBuffer(t *testing.T) {
	t.Parallel()
	url := impatientBroker(t)
	slow, other := openAt(t, url, nil), openAt(t, url, nil)
	s := transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 4}
	held := subscribeAt(t, slow, s)
	publishAt(t, slow, "0")
	await(t, held).Ack() // from now on it takes four at a time
	publishAt(t, slow, "1", "2", "3", "4")
	first := await(t, held)
	take := subscribeAt(t, other, s)
	// RabbitMQ 4.3 forgets the time of the next timeout when it has looked in vain in the very
	// millisecond of the one before, here that of 0, until something happens in the queue.
	wake := time.NewTicker(3 * time.Second)
	defer wake.Stop()
	patience := time.After(2 * time.Minute)
	for got := make(map[string]bool); !got["1"] || !got["2"] || !got["3"] || !got["4"]; {
		select {
		case msg := <-take:
			got[msg.UUID] = true
			msg.Ack()
		case <-wake.C:
			publishAt(t, other, "5")
		case <-patience:
			t.Fatalf("received %v; want 1 to 4", got)
		}
	}
	select {
	case msg := <-held:
		t.Errorf("received %s, which another process has handled", msg.UUID)
	case <-time.After(time.Second):
	}
	first.Ack()
}

// olderQueue declares the queues of a subscription, which are older than the timeouts that
// queues are given today.
func olderQueue(t *testing.T, url string, s transports.Subscription) {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // it is in the way of nothing
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	var tr Transport
	tr.cfg = Config{}.withDefaults()
	tr.names = namesOf(tr.cfg.Exchange)
	for queue, args := range map[string]amqp.Table{s.Name: tr.subscriptionArgs(s), tr.names.poison(s.Name): tr.poisonArgs()} {
		delete(args, disconnectedArg)
		delete(args, timeoutArg)
		if _, err := ch.QueueDeclare(queue, true, false, false, false, args); err != nil {
			t.Fatal(err)
		}
	}
}

// An ordered subscription goes on after each of its consumers has timed out.
func TestEveryOrderedConsumerTimesOut(t *testing.T) {
	t.Parallel()
	url := impatientBroker(t)
	s := transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 1, Ordered: true}
	olderQueue(t, url, s)
	var channels []<-chan *message.Message
	for range 2 {
		tr := openAt(t, url, nil)
		tr.consumerTimeout = 2 * time.Second
		channels = append(channels, subscribeAt(t, tr, s))
	}
	ids := []string{"1", "2", "3", "4", "5"}
	publishAt(t, openAt(t, url, nil), ids...)
	one := await(t, channels[0])
	two := await(t, channels[1]) // when it has timed out there
	if one.UUID != "1" || two.UUID != "1" {
		t.Fatalf("received %s and %s; want 1 twice", one.UUID, two.UUID)
	}
	<-time.After(6 * time.Second) // until it has timed out here as well
	one.Ack()
	two.Ack()
	want := ids
	for len(want) > 0 {
		select {
		case msg := <-channels[0]:
			want = ack(t, msg, want)
		case msg := <-channels[1]:
			want = ack(t, msg, want)
		case <-time.After(2 * time.Minute):
			t.Fatalf("the subscription does not go on; want %s", want)
		}
	}
}

// ack acknowledges the first of the wanted messages, or one that comes again, and returns
// the rest.
func ack(t *testing.T, msg *message.Message, want []string) []string {
	t.Helper()
	defer msg.Ack()
	switch {
	case msg.UUID == want[0]:
		return want[1:]
	case msg.UUID > want[0]:
		t.Fatalf("received %s before %s", msg.UUID, want[0])
	}
	return want
}

// An ordered subscription may hold a message for long, where the broker lets it ask for that.
func TestOrderedConsumerIsGivenTime(t *testing.T) {
	t.Parallel()
	url := impatientBroker(t)
	if version := brokerVersion(t, url); strings.HasPrefix(version, "3.10.") || strings.HasPrefix(version, "3.11.") {
		t.Skipf("RabbitMQ %s has one consumer timeout for all queues", version)
	}
	s := transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 5, Ordered: true}
	active := subscribeAt(t, openAt(t, url, nil), s)
	standby := subscribeAt(t, openAt(t, url, nil), s)
	publishAt(t, openAt(t, url, nil), "1", "2", "3", "4", "5", "6", "7")
	msg := await(t, active)
	select {
	case <-standby:
		t.Error("another consumer has a message while the first one holds it")
	case <-time.After(6 * time.Second):
	}
	msg.Ack()
	for _, id := range []string{"2", "3", "4", "5", "6", "7"} {
		msg := await(t, active)
		if msg.UUID != id {
			t.Errorf("received %s; want %s", msg.UUID, id)
		}
		msg.Ack()
	}
}

func brokerVersion(t *testing.T, url string) string {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // it has answered
	return text(conn.Properties["version"])
}

// A queue that an earlier version has made goes on as it is, and the log says once how to
// give it what it lacks.
func TestQueueOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	broker := testserver.StartRabbitMQ(t)
	url := broker.URL()
	for _, ordered := range []bool{false, true} {
		s := transports.Subscription{Name: "s.ordered", Topics: []string{"a"}, Concurrency: 1, Ordered: ordered}
		if !ordered {
			s.Name = "s"
		}
		olderQueue(t, url, s)
		var log logged
		tr := openAt(t, url, &log)
		for range 2 {
			ctx, stop := context.WithCancel(t.Context())
			ch, err := tr.Subscribe(ctx, s)
			if err != nil {
				t.Fatal(err)
			}
			publishAt(t, tr, "1")
			await(t, ch).Ack()
			stop()
			for range ch {
				continue
			}
		}
		var missing []string
		switch version := brokerVersion(t, url); {
		case strings.HasPrefix(version, "3."), strings.HasPrefix(version, "4.0."): // compare neither
		default:
			missing = []string{`\"consumer-disconnected-timeout\":5000`}
			if ordered {
				missing = append(missing, `\"consumer-timeout\":86400000`)
			}
		}
		lines := log.with("set_policy")
		if len(missing) == 0 {
			if len(lines) > 0 {
				t.Errorf("ordered %t: warned: %q", ordered, lines)
			}
			continue
		}
		if len(lines) != 2 { // one a consumer
			t.Fatalf("ordered %t: warned %d times: %q; want twice, as there were two consumers", ordered, len(lines), log.lines)
		}
		for _, want := range missing {
			if !strings.Contains(lines[0], want) {
				t.Errorf("ordered %t: warned: %s; want %s", ordered, lines[0], want)
			}
		}
		_, line, _ := strings.Cut(lines[0], "rabbitmqctl ")
		fields := strings.Fields(strings.NewReplacer(`'`, "", `\`, "").Replace(strings.TrimSuffix(strings.TrimSpace(line), `"`)))
		broker.Ctl(fields...)
		if list := broker.Ctl("list_queues", "name", "policy"); strings.Count(list, "tidings."+s.Name) < 2 {
			t.Errorf("ordered %t: policies of the queues:\n%s", ordered, list)
		}
	}
}

// When a broker node dies, an ordered subscription goes on with a consumer of another node.
// RabbitMQ 4.3 keeps the place of the dead node's consumer for a minute, unless the queue
// says otherwise.
func TestOrderedSubscriptionLeavesDeadNode(t *testing.T) {
	t.Parallel()
	cluster := testserver.StartRabbitMQCluster(t, 3)
	nodes := cluster.Nodes()
	s := transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 1, Ordered: true}
	active := subscribeAt(t, openAt(t, nodes[2].URL(), nil), s)
	other := openAt(t, nodes[0].URL(), nil)
	standby := subscribeAt(t, other, s)
	publishAt(t, other, "1", "2", "3")
	if msg := await(t, active); msg.UUID != "1" {
		t.Fatalf("received %s; want 1", msg.UUID)
	}
	nodes[2].Kill()
	died := time.Now()
	for _, id := range []string{"1", "2", "3"} {
		msg := await(t, standby)
		if msg.UUID != id {
			t.Fatalf("received %s; want %s", msg.UUID, id)
		}
		msg.Ack()
	}
	if waited := time.Since(died); waited > 50*time.Second { // 5 s, an election, and a busy machine
		t.Errorf("the subscription stood still for %v", waited)
	}
}
