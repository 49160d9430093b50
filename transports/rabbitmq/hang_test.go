package rabbitmq

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
)

// deafBroker takes connections as RabbitMQ does, says at times that it is there, and
// answers nothing else: so does a broker that is short of memory, to who publishes.
func deafBroker(t *testing.T, heartbeats bool) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // in a test
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer func() { _ = conn.Close() }()
				handshake(conn)
				if heartbeats {
					serving.Go(func() {
						for err == nil {
							_, err = conn.Write([]byte{8, 0, 0, 0, 0, 0, 0, 0xCE})
							<-time.After(50 * time.Millisecond)
						}
					})
				}
				_, _ = io.Copy(io.Discard, conn) // until the client closes it
			})
		}
	})
	return "amqp://guest:guest@" + listener.Addr().String() + "/"
}

// handshake answers up to connection.open-ok (AMQP 0-9-1, section 2.2.4).
func handshake(conn net.Conn) {
	in := bufio.NewReader(conn)
	method := func(class, method uint16, arguments ...byte) {
		payload := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, class), method)
		payload = append(payload, arguments...)
		frame := binary.BigEndian.AppendUint32([]byte{1, 0, 0}, uint32(len(payload)))
		_, _ = conn.Write(append(append(frame, payload...), 0xCE))
	}
	await := func() {
		var header [7]byte
		if _, err := io.ReadFull(in, header[:]); err == nil {
			_, _ = in.Discard(int(binary.BigEndian.Uint32(header[3:])) + 1)
		}
	}
	_, _ = in.Discard(8) // the protocol's name
	method(10, 10, append([]byte{0, 9, 0, 0, 0, 0, 0, 0, 0, 5}, "PLAIN\x00\x00\x00\x05en_US"...)...)
	await() // start-ok
	method(10, 30, 0, 0, 0, 2, 0, 0, 0, 0)
	await() // tune-ok
	await() // open
	method(10, 41, 0)
}

// A broker that takes connections, is there and answers nothing is left in time.
func TestDeafBrokerIsLeft(t *testing.T) {
	t.Parallel()
	for name, heartbeats := range map[string]bool{"silent": false, "with heartbeats": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			done := make(chan error)
			go func() {
				_, err := Open(t.Context(), Config{URLs: []string{deafBroker(t, heartbeats)}, ConnectTimeout: time.Second, Heartbeat: time.Minute})
				done <- err
			}()
			select {
			case err := <-done:
				if !errors.Is(err, context.DeadlineExceeded) && (err == nil || !strings.Contains(err.Error(), "no broker answered")) {
					t.Errorf("open: %v", err)
				}
			case <-time.After(testPatience / 2):
				t.Error("open does not return")
			}
		})
	}
}

// A connection of which nothing is heard from its beginning is lost, as any other.
func TestSilentConnectionIsLost(t *testing.T) {
	t.Parallel()
	cfg := Config{URLs: []string{deafBroker(t, false)}, Heartbeat: time.Second}.withDefaults()
	nodes, l, err := parseNodes(cfg.URLs)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := newConnection("test", cfg, nodes, l).dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-conn.lost: //nolint:errcheck // a signal
	case <-time.After(testPatience / 2):
		t.Error("the connection is up still")
		_ = conn.CloseDeadline(time.Now())
	}
}

// A call whose context ends does not wait for another one, which waits for the broker.
func TestCallsWaitForTheirOwnContextOnly(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	var n testserver.Network
	cfg := b.cfg
	cfg.Dial, cfg.ConnectTimeout = n.Dial, time.Hour
	tr := mustOpen(t, cfg)
	n.Cut()
	patient, giveUp := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range 2 {
		waiting.Go(func() { _ = tr.ensureDelays(patient) })
		waiting.Go(func() { _, _ = tr.Depth(patient, "s") })
	}
	b.eventually("both turns are taken", func() bool { return len(tr.delays.turn) == 1 && len(tr.con.starting) == 1 })
	for name, call := range map[string]func(context.Context) error{
		"delayed publish": func(ctx context.Context) error {
			return tr.PublishBatch(ctx, []transports.Outgoing{{Topic: "a", Message: newMessage(t, "1"), Delay: time.Second}})
		},
		"depth": func(ctx context.Context) error { _, err := tr.Depth(ctx, "s"); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		result := make(chan error, 1)
		go func() { result <- call(ctx) }()
		select {
		case err := <-result:
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v; want that its deadline has passed", name, err)
			}
		case <-time.After(testPatience / 4):
			t.Errorf("%s does not return", name)
		}
		cancel()
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	waiting.Wait() // Close ends them, not their context
	giveUp()
}

// A name that the protocol can't write must not end the connection of everybody.
func TestNamesThatTheProtocolCantWrite(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	ch := b.subscribe(b.Transport, b.sub("s", 1))
	long := string(make([]byte, 300))
	ctx, cancel := context.WithTimeout(t.Context(), testPatience/4)
	defer cancel()
	requeue := func(delay time.Duration) error { return b.Requeue(ctx, long, newMessage(t, "1"), delay) }
	list := func() error {
		for _, err := range b.Poisoned(ctx, long, transports.PoisonPage{}) {
			return err
		}
		return nil
	}
	for name, err := range map[string]error{
		"requeue": requeue(0), "delayed requeue": requeue(time.Second), "poison": b.Poison(ctx, long, newMessage(t, "1")), "poisoned": list(),
	} {
		if !errors.Is(err, transports.ErrNoSubscription) {
			t.Errorf("%s: %v; want ErrNoSubscription", name, err)
		}
	}
	if _, err := b.Depth(ctx, long); !errors.Is(err, transports.ErrNoSubscription) {
		t.Errorf("depth: %v; want ErrNoSubscription", err)
	}
	if err := b.RemoveSubscription(ctx, long); err != nil {
		t.Errorf("remove: %v; an unknown name is no error", err)
	}
	s := b.sub("long", 1)
	s.Topics = append(s.Topics, strings.Repeat("t", 300))
	if _, err := b.Subscribe(ctx, s); err == nil || !strings.Contains(err.Error(), "300 bytes") {
		t.Errorf("subscribe to a topic of 300 bytes: %v", err)
	}
	b.publish("1")
	if msg := b.receive(ch); msg.UUID != "1" || !msg.Ack() {
		t.Errorf("received %s", msg.UUID)
	}
}

// A caller that gives up while it takes the lock leaves none behind.
func TestLockIsNotLeftBehind(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 1)
	b.declared(s)
	b.list(s.Name) // so that the connection is there
	other := b.open()
	for i := range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*30*time.Microsecond)
		for _, err := range b.Poisoned(ctx, s.Name, transports.PoisonPage{}) {
			_ = err // wherever it was
		}
		cancel()
		ctx, cancel = context.WithTimeout(t.Context(), testPatience/4)
		for _, err := range other.Poisoned(ctx, s.Name, transports.PoisonPage{}) {
			t.Fatal(err)
		}
		cancel()
	}
}

// What the broker refuses for now is sent again.
func TestNackedPublishIsSentAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.out.nackDelay = 50 * time.Millisecond
	full, err := b.raw.QueueDeclare("", false, true, true, false, amqp.Table{"x-max-length": int64(1), "x-overflow": "reject-publish"})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.raw.QueueBind(full.Name, "a", b.id, false, nil); err != nil {
		t.Fatal(err)
	}
	b.publish("1")
	result := make(chan error, 1)
	go func() { result <- b.Publish("a", newMessage(t, "2")) }()
	select {
	case err := <-result:
		t.Fatalf("publish to a full queue: %v", err)
	case <-time.After(4 * b.out.nackDelay):
	}
	if _, ok, err := b.raw.Get(full.Name, true); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// A connection that is lost in the middle of a call is no error of the call.
func TestLostCallIsMadeAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	calls := 0
	err := b.pub.run(t.Context(), func(*amqp.Channel) error {
		if calls++; calls == 1 {
			return errLost
		}
		return nil
	})
	if calls != 2 || err != nil {
		t.Errorf("%d calls, %v", calls, err)
	}
}
