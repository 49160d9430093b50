package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
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
	"github.com/gotidings/tidings/examples/documents/internal/monitor"
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
	p := newProxy(t, &args[brokerURL])
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
	p := newProxy(t, &args[databaseURL])
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

// Servers that are slow for a while lose nothing. They are up, unless they are so slow that
// they are as good as none.
func TestSlow(t *testing.T) {
	t.Parallel()
	for name, which := range map[string]int{"database": databaseURL, "broker": brokerURL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := onServers(t)
			p := newProxy(t, &args[which])
			s := start(t, newConfig(t, append(args, "-monitor-interval", "100ms")...))
			ada := s.connect(adasToken, "ada")
			const latency, documents = 300 * time.Millisecond, 6
			p.slow(latency)
			defer p.slow(0)
			ids := make([]string, documents)
			var submitting sync.WaitGroup
			for i := range ids {
				ids[i] = events.NewID()
				submitting.Go(func() {
					if _, err := ada.rest.Submit(t.Context(), ids[i], "a.txt", letter); err != nil {
						t.Error(err)
					}
				})
			}
			submitting.Wait()
			until(t, "a document that moves", func() bool {
				d, err := ada.rest.Get(t.Context(), ids[0])
				return err == nil && d.Status != document.Queued
			})
			until(t, "the page shows that it is slow", func() bool { return s.dependency(name).TookMs >= latency.Milliseconds() })
			if d := s.dependency(name); d.Status != monitor.Up || d.Failures != 0 {
				t.Errorf("the page shows %+v", d)
			}
			if code, body := s.request(http.MethodGet, "/readyz", "", nil); code != http.StatusOK {
				t.Errorf("readyz: %d %s", code, body)
			}

			p.slow(time.Hour)
			until(t, "the page shows that it is down", func() bool { return s.dependency(name).Status == monitor.Down })
			until(t, "readyz says so", func() bool {
				code, _ := s.request(http.MethodGet, "/readyz", "", nil)
				return code == http.StatusServiceUnavailable
			})
			p.slow(0)
			for _, id := range ids {
				until(t, "the end of a document", func() bool {
					d, err := ada.rest.Get(t.Context(), id)
					return err == nil && d.Status == document.Processed
				})
			}
			until(t, "the page shows that it is up", func() bool { return s.dependency(name).Status == monitor.Up })
			if n := s.services.payments.Payments()[payments.Paid]; n != documents {
				t.Errorf("%d documents were paid %d times", documents, n)
			}
			if dead := s.deadLetters(0); len(dead) > 0 {
				t.Errorf("%d messages are put aside: %+v", len(dead), dead[0])
			}
		})
	}
}
