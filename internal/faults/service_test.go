package faults_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
)

// childVariable of the environment makes the test program a service, and says which.
const childVariable = "FAULTS_SERVICE"

const (
	serviceName  = "faults"
	handlerName  = "handler"
	subscription = serviceName + "." + handlerName
)

// counted is the event of services.
type counted struct {
	N int `json:"n"`
}

func (counted) EventType() string { return "faults.counted" }

// orders are what a service is told to do.
type orders struct {
	URL             string
	Concurrency     int
	Work            time.Duration // that the handler takes
	ShutdownTimeout time.Duration
	Killer          int // the event that kills the process; 0: none does
}

// newBus returns the bus of the service, with the handler's subscription.
func (o orders) newBus(tr transports.Transport, handler func(context.Context, counted) error) (*bus.Bus, error) {
	b, err := bus.New(tr, bus.Config{Source: serviceName, Concurrency: o.Concurrency, ShutdownTimeout: o.ShutdownTimeout})
	if err == nil {
		bus.Subscribe(b, handlerName, handler)
	}
	return b, err
}

// childMain is the main function of a service.
func childMain() int {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "service:", err)
		return 1
	}
	return 0
}

// serve handles events until SIGTERM. It tells the test of each on its standard
// output: "begin" before the work and "end" after it.
func serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	// The end of the standard input is that of the test: no service outlives it.
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	var o orders
	if err := json.Unmarshal([]byte(os.Getenv(childVariable)), &o); err != nil {
		return err
	}
	var stdout sync.Mutex
	tell := func(word string, n int) {
		stdout.Lock()
		defer stdout.Unlock()
		fmt.Println(word, n)
	}
	tr, err := transports.Open(ctx, o.URL)
	if err != nil {
		return err
	}
	b, err := o.newBus(tr, func(ctx context.Context, e counted) error {
		tell("begin", e.N)
		if e.N == o.Killer {
			return kill()
		}
		select {
		case <-time.After(o.Work):
		case <-ctx.Done():
			return ctx.Err()
		}
		tell("end", e.N)
		return nil
	})
	if err != nil {
		return err
	}
	if err := b.Start(ctx); err != nil {
		return err
	}
	tell("ready", 0)
	<-ctx.Done()
	// Handlers that are cut short are an error of Shutdown, and no fault here.
	if err := b.Shutdown(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "service: shutdown:", err)
	}
	return tr.Close()
}

// kill ends this process as the system does that is out of memory.
func kill() error {
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	if err := self.Kill(); err != nil {
		return err
	}
	select {}
}

// service is a child of the test that handles events.
type service struct {
	cmd   *exec.Cmd
	lines chan line     // what it tells; closed when it has ended
	ended chan struct{} // closed when it has ended
	err   error         // how; after ended
}

type line struct {
	word string
	n    int
}

// startService starts a service, which the end of the test ends.
func startService(t *testing.T, o orders) *service {
	t.Helper()
	data, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	s := &service{
		cmd:   exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0]),
		lines: make(chan line),
		ended: make(chan struct{}),
	}
	s.cmd.Env = append(os.Environ(), childVariable+"="+string(data))
	s.cmd.Stderr = t.Output()
	stdin, err := s.cmd.StdinPipe() // open for as long as the service lives
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.ended)
		for out := bufio.NewScanner(stdout); out.Scan(); {
			word, number, _ := strings.Cut(out.Text(), " ")
			if n, err := strconv.Atoi(number); err == nil {
				s.lines <- line{word, n}
			}
		}
		s.err = s.cmd.Wait()
		_ = stdin.Close()
		close(s.lines)
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // an error: it has ended
		for range s.lines {
		}
		<-s.ended
	})
	return s
}

// follow enters what the service tells into the ledger, until enough says so after a
// line, or the service has ended. It returns whether enough did.
func (s *service) follow(t *testing.T, l *ledger, enough func(line) bool) bool {
	t.Helper()
	stuck := time.NewTimer(patience)
	defer stuck.Stop()
	for {
		select {
		case said, ok := <-s.lines:
			if !ok {
				return false
			}
			if said.word == "end" {
				l.handles(strconv.Itoa(said.n))
			}
			if enough(said) {
				return true
			}
		case <-stuck.C:
			t.Fatalf("the service is stuck: %s", l)
		}
	}
}

// finish follows the service to its end.
func (s *service) finish(t *testing.T, l *ledger) error {
	t.Helper()
	s.follow(t, l, func(line) bool { return false })
	<-s.ended
	return s.err
}

// terminate stops the service as a deploy does, and wants it to end well.
func (s *service) terminate(t *testing.T, l *ledger) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.finish(t, l); err != nil {
		t.Errorf("the service ended with %v", err)
	}
}
