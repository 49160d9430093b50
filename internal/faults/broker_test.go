package faults_test

import (
	"context"
	"hash/maphash"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
)

// patience is how long to wait for what must happen.
const patience = 3 * time.Minute

// withPatience returns a context for what must happen.
func withPatience(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// newRand returns a source of random choices that another run can repeat.
func newRand(t *testing.T) *rand.Rand {
	t.Helper()
	seed := new(maphash.Hash).Sum64()
	if s := os.Getenv("FAULTS_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("FAULTS_SEED: %v", err)
		}
	}
	t.Logf("to repeat the choices: FAULTS_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// open opens a transport that the end of the test closes.
func open(t *testing.T, url string) transports.Transport {
	t.Helper()
	tr, err := transports.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return tr
}

// newMessage returns an event whose id is its data.
func newMessage(ctx context.Context, topic, id string) *message.Message {
	msg := message.NewMessageWithContext(ctx, id, []byte(id))
	msg.Metadata["ce_type"] = topic
	msg.Metadata["ce_source"] = serviceName
	return msg
}

// consume handles the messages of a subscription until ctx ends. The function that it
// returns waits for the end.
func consume(ctx context.Context, t *testing.T, tr transports.Transport, s transports.Subscription, l *ledger) (wait func()) {
	t.Helper()
	ch, err := tr.Subscribe(ctx, s)
	if err != nil {
		t.Fatalf("subscribe: %v", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for msg := range ch {
			if msg.UUID != string(msg.Payload) {
				t.Errorf("event %q has the data %q", msg.UUID, msg.Payload)
			}
			l.handles(msg.UUID)
			msg.Ack()
		}
		if ctx.Err() == nil {
			t.Error("the subscription was lost: its channel is closed")
		}
	}()
	return func() { <-done }
}

// topology returns what is durable at the broker, a line for each thing.
func topology(b *testserver.Broker) []string {
	var all []string
	for _, query := range []string{
		"list_exchanges name type durable arguments",
		"list_queues name durable auto_delete arguments",
		"list_bindings source_name destination_name destination_kind routing_key arguments",
	} {
		words := strings.Fields(query)
		for line := range strings.Lines(b.Ctl(words...)) {
			all = append(all, words[0]+" "+strings.TrimSpace(line))
		}
	}
	slices.Sort(all)
	return all
}

// wantTopology wants everything to be there still. What was added since, such as a
// delay queue that was needed later, may be.
func wantTopology(t *testing.T, b *testserver.Broker, before []string) {
	t.Helper()
	after := topology(b)
	for _, thing := range before {
		if _, ok := slices.BinarySearch(after, thing); !ok {
			t.Errorf("it is gone from the broker: %s", thing)
		}
	}
}

// poisoned returns the poison queue of a subscription.
func poisoned(t *testing.T, tr transports.Transport, name string) []transports.Poisoned {
	t.Helper()
	queue, ok := tr.(transports.PoisonQueue)
	if !ok {
		t.Fatal("the transport has no poison queue")
	}
	var all []transports.Poisoned
	for p, err := range queue.Poisoned(withPatience(t), name, transports.PoisonPage{}) {
		if err != nil {
			t.Fatalf("poison queue of %s: %v", name, err)
		}
		all = append(all, p)
	}
	return all
}

func wantNonePoisoned(t *testing.T, tr transports.Transport, name string) {
	t.Helper()
	for _, p := range poisoned(t, tr, name) {
		t.Errorf("event %s is poisoned after %d attempts: %s", p.Message.Payload, p.Attempts, p.Reason)
	}
}
