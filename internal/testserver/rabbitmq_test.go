package testserver_test

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gotidings/tidings/internal/testserver"
)

// What a broker was told durably outlives a kill and a stop.
func TestBrokerKeepsItsData(t *testing.T) {
	t.Parallel()
	b := testserver.StartRabbitMQ(t)
	url := b.URL()
	b.Ctl("add_vhost", "kept")
	b.Kill()
	if answers(b.Addr()) {
		t.Error("the broker answers after Kill")
	}
	b.Start()
	wantVhosts(t, b, "/", "kept")
	b.Stop()
	if answers(b.Addr()) {
		t.Error("the broker answers after Stop")
	}
	b.Start()
	wantVhosts(t, b, "/", "kept")
	if b.URL() != url {
		t.Errorf("it has moved from %s to %s", url, b.URL())
	}
}

// A broker is of the release that a test asks for.
func TestReleases(t *testing.T) {
	t.Parallel()
	for _, v := range testserver.Versions {
		if v.Server != testserver.RabbitMQServer || v.Debian == "" {
			continue
		}
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			got := testserver.StartRabbitMQ(t, testserver.Release(v.Release)).Version()
			switch v.Compare(got) {
			case -1:
				t.Errorf("version %s", got)
			case 1:
				t.Logf("Debian %s has moved on to %s", v.Debian, got)
			}
		})
	}
}

func wantVhosts(t *testing.T, b *testserver.Broker, want ...string) {
	t.Helper()
	if got := slices.Sorted(strings.Lines(b.Ctl("list_vhosts"))); !slices.Equal(got, []string{want[0] + "\n", want[1] + "\n"}) {
		t.Errorf("vhosts %q, want %q", got, want)
	}
}

// Brokers of several tests do not meet: each is a cluster of one.
func TestBrokersAreApart(t *testing.T) {
	t.Parallel()
	first, second := testserver.StartRabbitMQ(t), testserver.StartRabbitMQ(t)
	first.Ctl("add_vhost", "first")
	wantVhosts(t, first, "/", "first")
	if got := second.Ctl("list_vhosts"); got != "/\n" {
		t.Errorf("the second broker has the vhosts %q", got)
	}
	first.Kill()
	if !answers(second.Addr()) {
		t.Error("the second broker is gone with the first")
	}
}

const orphan = "TESTSERVER_ORPHAN"

// The broker of a test that is killed does not stay behind.
func TestBrokerDiesWithTheTest(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux can see to that")
	}
	if os.Getenv(orphan) != "" {
		b := testserver.StartRabbitMQ(t)
		t.Log("broker at " + b.Addr() + " in " + b.Folder() + ".")
		<-t.Context().Done() // never: the parent kills this process
	}
	testserver.StartRabbitMQ(t) // skips where there is none, before the child does
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBrokerDiesWithTheTest$", "-test.v")
	child.Env = append(os.Environ(), orphan+"=1")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var addr, folder string
	for lines := bufio.NewScanner(out); addr == "" && lines.Scan(); {
		if _, after, ok := strings.Cut(lines.Text(), "broker at "); ok {
			addr, folder, _ = strings.Cut(strings.TrimSuffix(after, "."), " in ")
		}
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) }) // the child can't
	if !answers(addr) {
		t.Errorf("the child's broker %q does not answer", addr)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // its error is the kill
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for answers(addr) {
		select {
		case <-ctx.Done():
			t.Fatalf("the broker at %s outlives the test that started it", addr)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func answers(addr string) bool {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", addr)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}
