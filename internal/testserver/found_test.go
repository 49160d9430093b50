package testserver

import (
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// fakeServer listens until the test ends. It writes greeting at once, and answer once
// it has read something.
func fakeServer(t *testing.T, greeting, answer string) (hostPort string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it does not wait
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, greeting)
			var request [8]byte
			if n, _ := conn.Read(request[:]); n > 0 {
				fmt.Fprint(conn, answer)
			}
			_ = conn.Close()
		}
	}()
	return l.Addr().String()
}

func TestGreetings(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		kind             kind
		greeting, answer string
		ok               bool
	}{
		"RabbitMQ":                  {rabbitMQ, "", "\x01\x00\x00\x00\x00\x01\xff", true},
		"a broker of AMQP 1.0":      {rabbitMQ, "", "AMQP\x00\x01\x00\x00", false},
		"a broker that hangs up":    {rabbitMQ, "", "", false},
		"Postgres":                  {postgres, "", "N", true},
		"Postgres with TLS":         {postgres, "", "S", true},
		"a web server":              {postgres, "", "HTTP/1.1 400", false},
		"MariaDB":                   {mySQL, "\x5b\x00\x00\x00\x0a5.5.5", "", true},
		"MySQL that refuses a host": {mySQL, "\x45\x00\x00\x00\xff\x6a\x04", "", false},
		"a mail server":             {mySQL, "220 mail", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := test.kind.answers(t.Context(), "scheme://user:secret@"+fakeServer(t, test.greeting, test.answer)+"/x")
			if (err == nil) != test.ok {
				t.Errorf("error %v, want success: %t", err, test.ok)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error %q tells the password", err)
			}
		})
	}
}

// tbRecorder is a test that notes how it ended.
type tbRecorder struct {
	testing.TB
	skipped, failed string
}

func (*tbRecorder) Helper() {}

func (r *tbRecorder) Skip(args ...any) {
	r.skipped = fmt.Sprint(args...)
	runtime.Goexit()
}

func (r *tbRecorder) Fatalf(format string, args ...any) {
	r.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// findRabbitMQ looks for a broker in a test of its own.
func findRabbitMQ(t *testing.T) (string, *tbRecorder) {
	t.Helper()
	r := &tbRecorder{TB: t}
	var address string
	var test sync.WaitGroup
	test.Go(func() { address = RabbitMQ(r) })
	test.Wait()
	return address, r
}

//nolint:paralleltest // it sets the environment
func TestFind(t *testing.T) {
	// A port that was free a moment ago, with nobody behind it.
	nowhere := fmt.Sprintf("amqp://user:secret@127.0.0.1:%d/", FreePort(t))
	there := "amqp://" + fakeServer(t, "", "\x01\x00\x00") + "/"

	for _, require := range []string{"", "1"} {
		t.Setenv("REQUIRE_SERVICES", require)
		t.Setenv("RABBITMQ_URL", there)
		if got, r := findRabbitMQ(t); got != there || r.skipped+r.failed != "" {
			t.Errorf("found %q (skipped %q, failed %q), want %q", got, r.skipped, r.failed, there)
		}

		t.Setenv("RABBITMQ_URL", nowhere)
		_, r := findRabbitMQ(t)
		told, quiet := r.skipped, r.failed
		if require == "1" {
			told, quiet = quiet, told
		}
		if quiet != "" {
			t.Errorf("REQUIRE_SERVICES=%q: skipped %q, failed %q", require, r.skipped, r.failed)
		}
		for _, part := range []string{"RABBITMQ_URL", "docker compose up -d rabbitmq", "apt-get install rabbitmq-server"} {
			if !strings.Contains(told, part) {
				t.Errorf("REQUIRE_SERVICES=%q: no %q in %q", require, part, told)
			}
		}
		if strings.Contains(told, "secret") {
			t.Errorf("%q tells the password", told)
		}
	}
}

func TestReleaseThatIsNotThere(t *testing.T) {
	t.Setenv("REQUIRE_SERVICES", "1")
	t.Setenv("TIDINGS_ROOTS", t.TempDir())
	for release, want := range map[string]string{
		"4.3": "scripts/roots.sh",
		"4.2": "no test runs it",
		"2.0": "not in the list",
	} {
		t.Setenv("TIDINGS_RABBITMQ", release)
		r := &tbRecorder{TB: t}
		var test sync.WaitGroup
		test.Go(func() { StartRabbitMQ(r) })
		test.Wait()
		if !strings.Contains(r.failed, want) {
			t.Errorf("%s: failed with %q, want %q", release, r.failed, want)
		}
	}
}
