package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/examples/documents/internal/document"
	"github.com/gotidings/tidings/examples/documents/internal/payments"
	"github.com/gotidings/tidings/internal/testserver"
)

// childVariable makes a process of the test binary one of the system, with these arguments.
const childVariable = "DOCUMENTS_TEST_CHILD"

func TestMain(m *testing.M) {
	if args := os.Getenv(childVariable); args != "" {
		os.Exit(run(context.Background(), strings.Split(args, "\n"), noEnv, os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

// process is a process of the system that can be killed.
type process struct{ cmd *exec.Cmd }

// startProcess starts a process, and waits until it is ready.
func startProcess(t *testing.T, args ...string) *process {
	t.Helper()
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(testserver.FreePort(t)))
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{exec.CommandContext(t.Context(), program)}
	p.cmd.Env = append(os.Environ(), childVariable+"="+strings.Join(append(args, "-addr", address), "\n"))
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintln(t.Output(), "child:", lines.Text())
		}
	})
	t.Cleanup(func() {
		p.kill()
		reading.Wait()
	})
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	until(t, "a process that is ready", func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/readyz", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return false
		}
		_ = resp.Body.Close() // nothing of it is needed
		return resp.StatusCode == http.StatusOK
	})
	return p
}

// kill ends the process as a crash does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // or it has ended
	_ = p.cmd.Wait()         // with the signal as its error
}

// A worker that is killed amid its work has lost nothing: another one goes on, and nobody
// pays twice.
func TestWorkerKilled(t *testing.T) {
	t.Parallel()
	const key = "a key of at least thirty-two characters"
	shared := append(onServers(t), "-key", key)
	cfg := newConfig(t, slices.Concat(shared, []string{"-role", "api,services", "-services-addr", "127.0.0.1:0", "-delay", "20ms"})...)
	s := openSystem(t, cfg)
	at := "static:" + s.services.addresses()[0]
	worker := slices.Concat(shared, []string{"-name", cfg.name, "-role", "worker", "-analysis", at, "-payments", at, "-retry-delay", "20ms", "-monitor-interval", "100ms"})
	first := startProcess(t, worker...)
	s.begin()

	ada := s.connect(adasToken, "ada")
	const documents = 30
	var ids []string
	for i := range documents {
		ids = append(ids, ada.submit(t.Context(), fmt.Sprintf("%d.txt", i), letter))
	}
	ada.final(ids[0])
	first.kill()
	unfinished := 0
	for _, id := range ids {
		d, err := ada.rest.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if !d.Status.Final() {
			unfinished++
		}
	}
	if unfinished == 0 {
		t.Error("the worker had finished when it was killed: nothing was tested")
	}
	startProcess(t, worker...)
	for _, id := range ids {
		if d := ada.final(id); d.Status != document.Processed || d.Results.PaymentID == "" {
			t.Errorf("document is %+v", d)
		}
	}
	if n := s.services.payments.Payments()[payments.Paid]; n != documents {
		t.Errorf("%d documents were paid %d times", documents, n)
	}
	until(t, "each document counted once", func() bool {
		_, body := s.request(http.MethodGet, "/statistics", adasToken, nil)
		return body == fmt.Sprintf(`{"categories":{"letter":%d}}`, documents)
	})
}

// Without its broker, the system takes documents, says how things are, and goes on when the
// broker is back.
func TestBrokerCut(t *testing.T) {
	t.Parallel()
	args := onServers(t)
	broker, err := url.Parse(args[3])
	if err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, broker.Host)
	broker.Host = p.listener.Addr().String()
	args[3] = broker.String()
	s := start(t, newConfig(t, append(args, "-delay", "20ms", "-monitor-interval", "50ms")...))
	ada := s.connect(adasToken, "ada")
	var ids []string
	submit := func(n int) {
		for range n {
			ids = append(ids, ada.submit(t.Context(), "a.txt", letter))
		}
	}
	submit(15)
	ada.final(ids[0])
	p.cut()
	until(t, "the page shows that the broker is down", func() bool { return s.dependency("broker").Status == "down" })
	if code, body := s.request(http.MethodGet, "/readyz", "", nil); code != http.StatusServiceUnavailable {
		t.Errorf("readyz: %d %s", code, body)
	}
	for range 5 { // the outbox takes them; live updates end until the broker is back
		id := events.NewID()
		if _, err := ada.rest.Submit(t.Context(), id, "a.txt", letter); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	p.heal()
	for _, id := range ids {
		until(t, "the end of a document", func() bool {
			d, err := ada.rest.Get(t.Context(), id)
			return err == nil && d.Status == document.Processed
		})
	}
	until(t, "the page shows that the broker is up", func() bool { return s.dependency("broker").Status == "up" })
	if n := s.services.payments.Payments()[payments.Paid]; n != len(ids) {
		t.Errorf("%d documents were paid %d times", len(ids), n)
	}
}

// An outage of the database that is longer than all deliveries leaves no document behind.
func TestDatabaseCut(t *testing.T) {
	t.Parallel()
	args := onServers(t)
	u, err := url.Parse(args[1])
	if err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, u.Host)
	u.Host = p.listener.Addr().String()
	args[1] = u.String()
	cfg := newConfig(t, append(args, "-delay", "100ms", "-retry-delay", "1s")...)
	s := start(t, cfg)
	ada := s.connect(adasToken, "ada")
	ids := make([]string, 8) // twice as many as are processed at a time
	for i := range ids {
		ids[i] = ada.submit(t.Context(), "a.txt", letter)
	}
	ada.final(ids[0])
	p.cut()
	outage := time.Now()
	until(t, "three deliveries would be over", func() bool { return time.Since(outage) > 5*time.Second })
	p.heal()
	for _, id := range ids {
		until(t, "the end of a document", func() bool {
			d, err := ada.rest.Get(t.Context(), id)
			return err == nil && d.Status == document.Processed
		})
	}
	if dead := s.deadLetters(0); len(dead) > 0 {
		t.Errorf("%d messages are put aside: %+v", len(dead), dead[0])
	}
}

// proxy is in front of a server, and can be cut.
type proxy struct {
	listener net.Listener
	to       string
	running  sync.WaitGroup

	mu    sync.Mutex // guards what follows
	conns map[net.Conn]struct{}
	down  bool
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, to: to, conns: make(map[net.Conn]struct{})}
	p.running.Go(p.accept)
	t.Cleanup(func() {
		_ = listener.Close() // ends accept
		p.cut()
		p.running.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		from, err := p.listener.Accept()
		if err != nil {
			return
		}
		var dialer net.Dialer
		to, err := dialer.DialContext(context.Background(), "tcp", p.to)
		if err != nil || !p.add(from, to) {
			_ = from.Close() // it is cut
			continue
		}
		p.running.Go(func() { p.copy(from, to) })
		p.running.Go(func() { p.copy(to, from) })
	}
}

func (p *proxy) add(from, to net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		_ = to.Close() // nothing was sent
		return false
	}
	p.conns[from], p.conns[to] = struct{}{}, struct{}{}
	return true
}

func (p *proxy) copy(from, to net.Conn) {
	_, _ = io.Copy(to, from) // until either end is closed
	_ = from.Close()
	_ = to.Close()
}

// cut closes all connections, and those that come, until heal.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for conn := range p.conns {
		_ = conn.Close() // it is cut
	}
	clear(p.conns)
}

func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}
