package testserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const rabbitMQPackage = "apt-get install rabbitmq-server"

// Broker is a RabbitMQ server that belongs to one test: its ports, node name, data and
// log are its own, whatever else runs on the machine.
//
// Its methods fail the test when they can't do what they are for. They are called one
// at a time, from the test's goroutine.
type Broker struct {
	tb       testing.TB
	programs string // folder of rabbitmq-server and rabbitmqctl, as the broker sees it
	account  account
	root     root
	dir      string // as the broker sees it
	env      []string
	host     string // of the node's name
	port     int    // of its clients, at 127.0.0.1
	web      int    // port of the management API, 0 without that plugin
	settings []string
	vm       *process // nil while it is down
}

const (
	// startTimeout is how long a server may take to start: two seconds on an idle
	// machine, and many times that on a busy one.
	startTimeout = 2 * time.Minute

	ctlTimeout = time.Minute
)

// Option changes a private broker.
type Option func(*brokerOptions)

type brokerOptions struct {
	release    string
	management bool
	settings   []string
}

// Release asks for a release of [Versions], such as "4.3".
func Release(release string) Option { return func(o *brokerOptions) { o.release = release } }

// Management starts a broker whose HTTP API answers at [Broker.ManagementURL].
func Management(o *brokerOptions) { o.management = true }

// Settings adds lines to rabbitmq.conf.
func Settings(lines ...string) Option {
	return func(o *brokerOptions) { o.settings = append(o.settings, lines...) }
}

// StartRabbitMQ starts a broker as the service's own user when the test runs as root. It
// is gone, with its data, when the test ends.
//
// Its release is that of the option [Release], else that of the environment variable
// TIDINGS_RABBITMQ. By default the installed programs run.
//
// It skips the test where RABBITMQ_URL names the nodes of a cluster: what needs a single node of
// its own is tested beside one, and is the same there.
func StartRabbitMQ(tb testing.TB, options ...Option) *Broker {
	tb.Helper()
	if nodes := strings.Fields(os.Getenv("RABBITMQ_URL")); len(nodes) > 1 {
		tb.Skip("it runs beside a single node")
	}
	s := newBrokerSetup(tb, options)
	s.startPortMapper(tb, "127.0.0.1")
	b := s.newBroker(tb, "localhost", "127.0.0.1", nil)
	b.Start()
	return b
}

// Start starts a broker that was stopped or killed, on the data that it had, and
// returns when it takes connections.
func (b *Broker) Start() {
	b.tb.Helper()
	b.launch()
	b.await()
}

func (b *Broker) launch() {
	b.tb.Helper()
	if b.vm != nil {
		b.tb.Fatalf("the private RabbitMQ server %s is running already", b.node())
	}
	vm, err := startProcess(b.command(context.Background(), "rabbitmq-server"))
	if err != nil {
		b.tb.Fatalf("rabbitmq-server: %v", err)
	}
	b.vm = vm
}

func (b *Broker) await() {
	b.tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.tb.Context()), startTimeout)
	defer cancel()
	if err := b.awaitListener(ctx); err != nil {
		b.tb.Fatalf("the private RabbitMQ server %s has not started: %v\n%s", b.node(), err, b.logTail())
	}
}

// awaitListener waits until the broker answers. It listens last of all, when its data
// is recovered.
func (b *Broker) awaitListener(ctx context.Context) error {
	const interval = 50 * time.Millisecond
	again := time.NewTicker(interval)
	defer again.Stop()
	for {
		err := rabbitMQ.answersAt(ctx, b.Addr())
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-b.vm.ended:
			return errors.New("it has ended")
		case <-ctx.Done():
			return err
		}
	}
}

// Addr returns the host and port of the broker, for a proxy in front of it. They stay
// the same when it is started again.
func (b *Broker) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port)) }

// URL returns the broker's URL, with the user guest and the vhost "/".
func (b *Broker) URL() string { return "amqp://guest:guest@" + b.Addr() + "/" }

// ManagementURL returns the URL of the HTTP API, with the user guest. It is "" without the
// plugin. It answers about when the broker does, and not always before.
func (b *Broker) ManagementURL() string {
	if b.web == 0 {
		return ""
	}
	return "http://guest:guest@" + net.JoinHostPort("127.0.0.1", strconv.Itoa(b.web))
}

// Kill ends the broker with SIGKILL, so that it has no chance to write anything down,
// and returns when it is gone.
func (b *Broker) Kill() {
	b.tb.Helper()
	b.running().kill()
	b.vm = nil
}

// Stop shuts the broker down as an operator does, and returns when it is gone.
func (b *Broker) Stop() {
	b.tb.Helper()
	vm := b.running()
	b.Ctl("stop")
	<-vm.ended
	b.vm = nil
}

// Pause stops the broker with SIGSTOP: its connections stay open, and nothing answers on
// them until Resume.
func (b *Broker) Pause() {
	b.tb.Helper()
	if err := b.running().pause(); err != nil {
		b.tb.Fatal(err)
	}
}

// Resume ends a Pause.
func (b *Broker) Resume() {
	b.tb.Helper()
	if err := b.running().resume(); err != nil {
		b.tb.Fatal(err)
	}
}

func (b *Broker) running() *process {
	b.tb.Helper()
	if b.vm == nil {
		b.tb.Fatalf("the private RabbitMQ server %s is not running", b.node())
	}
	return b.vm
}

// Ctl runs rabbitmqctl for this broker, without its headings, and returns what it
// prints. A call takes about a second.
func (b *Broker) Ctl(args ...string) string {
	b.tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.tb.Context()), ctlTimeout)
	defer cancel()
	args = append([]string{"--silent", "--node", b.node()}, args...)
	out, err := b.command(ctx, "rabbitmqctl", args...).CombinedOutput()
	if err != nil {
		b.tb.Fatalf("rabbitmqctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Version returns the version that the broker's programs have, such as "4.3.6".
func (b *Broker) Version() string {
	b.tb.Helper()
	return strings.TrimSpace(b.Ctl("version"))
}

// node returns the name that Erlang knows the broker by.
func (b *Broker) node() string { return fmt.Sprintf("tidings-%d@%s", b.port, b.host) }

// path returns where a file of the broker is, as the broker sees it.
func (b *Broker) path(name string) string { return filepath.Join(b.dir, name) }
