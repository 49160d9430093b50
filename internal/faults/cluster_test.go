package faults_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/rabbitmq"
)

const (
	// maxLateness is how much later than due an event may be handled, besides the time in
	// which the cluster was broken.
	maxLateness = 15 * time.Second

	// deadLetterPause is how long a delay queue may pass nothing on after its leader has
	// changed: a worker that the new leader starts waits so long for the answer to its first
	// command, which is lost if the cluster is still broken (rabbit_fifo_dlx_client, checkout).
	deadLetterPause = time.Minute

	clusterRelease = "4.3" // which keeps its own metadata by consensus, so that a partition heals

	clusterEvents = 20_000 // acknowledged deliveries of the whole test
	clusterStart  = 80 * time.Second
)

// A service of two replicas works on a cluster of three nodes, which breaks in five ways,
// one after the other. Nothing is lost, stuck, handled out of order or late.
//
//nolint:paralleltest // three nodes are enough for a machine
func TestCluster(t *testing.T) {
	if os.Getenv("TIDINGS_RABBITMQ") != clusterRelease {
		t.Skipf("make matrix runs it on RabbitMQ %s; TIDINGS_RABBITMQ=%[1]s runs it alone", clusterRelease)
	}
	c := testserver.StartRabbitMQCluster(t, 3)
	for i, fault := range []struct {
		name string
		harm func(t *testing.T, f *clusterFault)
	}{
		{"the leader is killed and stays down", leaderKilled},
		{"a node stands still", nodeStopped},
		{"two nodes are down", twoNodesDown},
		{"a node is cut off", nodeIsolated},
		{"a rolling restart", rollingRestart},
	} {
		if !t.Run(fault.name, func(t *testing.T) {
			newClusterFault(t, c, fmt.Sprint(serviceName, i)).run(t, fault.harm)
		}) {
			return // the cluster may be broken still
		}
	}
}

// clusterFault is one fault of a cluster at work.
type clusterFault struct {
	*workload
	c      *testserver.Cluster
	random *rand.Rand
	ctx    context.Context //nolint:containedctx // that of the test
}

func newClusterFault(t *testing.T, c *testserver.Cluster, service string) *clusterFault {
	t.Helper()
	return &clusterFault{workload: newWorkload(service), c: c, random: newRand(t), ctx: withPatience(t)}
}

// run runs the workload: a third of it, then the fault, then the rest.
func (f *clusterFault) run(t *testing.T, harm func(*testing.T, *clusterFault)) {
	t.Helper()
	defer shutDown(t, f.replica(f.ctx, t, f.open(t, 0)))
	defer shutDown(t, f.replica(f.ctx, t, f.open(t, 1)))
	publisher, err := bus.New(f.open(t, 2), bus.Config{Source: f.service})
	if err != nil {
		t.Fatal(err)
	}
	if err := publisher.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	defer shutDown(t, publisher)

	enough := make(chan struct{})
	var publishers sync.WaitGroup
	const each = 8 // keys of a publisher, and publishers
	for p := range each {
		keys := make([]string, each)
		for k := range keys {
			keys[k] = fmt.Sprintf("%d-%d", p, k)
		}
		seed := f.random.Uint64()
		publishers.Go(func() { f.publish(f.ctx, publisher, keys, rand.New(rand.NewPCG(seed, 1)), enough) })
	}
	stopped := sync.OnceFunc(func() { close(enough); publishers.Wait() })
	defer stopped()

	f.awaitDeliveries(t, clusterEvents/5/3)
	healthy := time.Now()
	usual := longest(f.lateness())
	harm(t, f)
	whole := time.Now()
	f.goesOn(t, clusterEvents/5/3)
	f.awaitDeliveries(t, clusterEvents/5)
	stopped()
	if err := f.await(f.ctx, func() bool { return f.owed == 0 }); err != nil {
		t.Fatalf("%v: %s", err, f.missing())
	}

	f.wantOrder(t)
	f.wantDead(t)
	late := f.lateness()
	t.Logf("%d deliveries; the fault took %s; the latest was %s late, %s before the fault", len(late),
		whole.Sub(healthy).Round(time.Second), longest(late).Round(time.Millisecond), usual.Round(time.Millisecond))
	f.wantNoneLate(t, late, maxLateness+usual)
}

func longest(late map[delivery]time.Duration) (longest time.Duration) {
	for _, l := range late {
		longest = max(longest, l)
	}
	return longest
}

// wantNoneLate wants no event to be handled later than most after it was due. Those that
// came through a delay queue may be later by deadLetterPause if the cluster was broken.
func (f *clusterFault) wantNoneLate(t *testing.T, late map[delivery]time.Duration, most time.Duration) {
	t.Helper()
	count := make(map[string]int)
	for d, l := range late {
		allowed := most
		if len(f.outages) > 0 && (d.subscription == laterName || d.subscription == workName && f.fates[d.id] == retried) {
			allowed += deadLetterPause
		}
		if l <= allowed {
			continue
		}
		if count[d.subscription]++; count[d.subscription] <= 3 {
			t.Errorf("%s of %s (%s) was due at %s and handled %s later, besides the outage; at most %s is wanted", d.id, d.subscription,
				f.fates[d.id], f.due[d].Format(time.TimeOnly), l.Round(time.Millisecond), allowed.Round(time.Millisecond))
		}
	}
	for subscription, n := range count {
		t.Errorf("%d events of %s were late", n, subscription)
	}
}

// urls returns the URLs of all nodes, of which a client tries the given one first.
func (f *clusterFault) urls(first int) []string {
	all := f.c.URLs()
	return slices.Concat(all[first:], all[:first])
}

// open opens a transport that the end of the test closes.
func (f *clusterFault) open(t *testing.T, first int) transports.Transport {
	t.Helper()
	tr, err := rabbitmq.Open(f.ctx, rabbitmq.Config{
		URLs: f.urls(first), Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
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

func shutDown(t *testing.T, b *bus.Bus) {
	t.Helper()
	if err := b.Shutdown(context.WithoutCancel(t.Context())); err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

// awaitDeliveries waits until so many deliveries are owed or done.
func (f *clusterFault) awaitDeliveries(t *testing.T, n int) {
	t.Helper()
	if err := f.await(f.ctx, func() bool { return len(f.due) >= n }); err != nil {
		t.Fatalf("%v before %d deliveries were acknowledged: %s", err, n, f.missing())
	}
}

// wantDead wants the poison queue to have each step that fails for good, and nothing else.
func (f *clusterFault) wantDead(t *testing.T) {
	t.Helper()
	tr := f.open(t, 0)
	found := make(map[string]bool)
	for _, p := range poisoned(t, tr, f.service+"."+workName) {
		id := p.Message.UUID
		found[id] = true
		if _, ok := f.dead[id]; !ok {
			t.Errorf("%s is poisoned: %s", id, p.Reason)
		}
	}
	for id, acknowledged := range f.dead {
		if acknowledged && !found[id] {
			t.Errorf("%s is not poisoned", id)
		}
	}
	for _, name := range []string{orderedName, laterName} {
		wantNonePoisoned(t, tr, f.service+"."+name)
	}
}

// startsAnew wants a new process with a subscription of its own to start and handle an
// event while the cluster is broken.
func (f *clusterFault) startsAnew(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(f.ctx, clusterStart)
	defer cancel()
	tr, err := rabbitmq.Open(ctx, rabbitmq.Config{URLs: f.urls(f.random.IntN(3))})
	if err != nil {
		t.Fatalf("a new process can't open the transport: %v", err)
	}
	defer tr.Close() //nolint:errcheck // its deliveries are done
	b, err := bus.New(tr, bus.Config{Source: "new"})
	if err != nil {
		t.Fatal(err)
	}
	handled := make(chan struct{})
	handles := sync.OnceFunc(func() { close(handled) })
	bus.Subscribe(b, fmt.Sprintf("new-%d", f.random.Uint32()), func(context.Context, step) error {
		handles()
		return nil
	})
	if err := b.Start(ctx); err != nil {
		t.Fatalf("a new process does not start: %v", err)
	}
	defer shutDown(t, b)
	select {
	case <-handled:
	case <-ctx.Done():
		t.Fatal("a new process handles nothing")
	}
}

// another returns a node that is not n.
func (f *clusterFault) another(n *testserver.Broker) *testserver.Broker {
	nodes := f.c.Nodes()
	return nodes[(slices.Index(nodes, n)+1)%len(nodes)]
}

// leader returns the node that leads the queue of the ordered subscription.
func (f *clusterFault) leader(t *testing.T) *testserver.Broker {
	t.Helper()
	n := f.c.Leader(f.c.Nodes()[0], f.service+"."+orderedName)
	if n == nil {
		t.Fatal("the queue has no leader")
	}
	return n
}

// goesOn wants so many more deliveries to be acknowledged and handled.
func (f *clusterFault) goesOn(t *testing.T, n int) {
	t.Helper()
	f.mu.Lock()
	n += len(f.due)
	f.mu.Unlock()
	f.awaitDeliveries(t, n)
	if err := f.await(f.ctx, func() bool { return len(f.due)-f.owed >= n }); err != nil {
		t.Fatalf("%v: %s", err, f.missing())
	}
}

// The other two nodes do all the work, and the time without the third is no outage.
func leaderKilled(t *testing.T, f *clusterFault) {
	t.Helper()
	n := f.leader(t)
	n.Kill()
	f.startsAnew(t)
	f.goesOn(t, clusterEvents/5/3)
	n.Start()
}

// The node holds its connections open and answers nobody.
func nodeStopped(t *testing.T, f *clusterFault) {
	t.Helper()
	n := f.leader(t)
	f.outage(func() {
		n.Pause()
		<-time.After(30 * time.Second) // the fault lasts that long
		n.Resume()
	})
}

// No queue has a majority.
func twoNodesDown(t *testing.T, f *clusterFault) {
	t.Helper()
	n := f.leader(t)
	f.outage(func() {
		n.Kill()
		f.another(n).Kill()
		<-time.After(5 * time.Second)
		f.c.Start(n, f.another(n))
	})
}

// Clients reach the node that the others do not.
func nodeIsolated(t *testing.T, f *clusterFault) {
	t.Helper()
	n := f.leader(t)
	f.outage(func() {
		f.c.Isolate(n)
		<-time.After(40 * time.Second)
		f.c.Heal()
	})
}

func rollingRestart(t *testing.T, f *clusterFault) {
	t.Helper()
	for _, n := range f.c.Nodes() {
		n.Stop()
		f.goesOn(t, clusterEvents/5/10)
		n.Start()
	}
}
