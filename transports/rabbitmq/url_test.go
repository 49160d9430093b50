package rabbitmq

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gotidings/tidings/transports"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		url  string
		want Config
	}{
		{"amqp://localhost", Config{URLs: []string{"amqp://localhost"}}},
		{"amqp://u:p@one,two,three:5673/v", Config{URLs: []string{"amqp://u:p@one:5673/v", "amqp://u:p@two:5673/v", "amqp://u:p@three:5673/v"}}},
		{"amqp://[::1]:5672/", Config{URLs: []string{"amqp://[::1]:5672/"}}},
		{
			"amqps://h/?exchange=e&queue_type=classic&topology=verify&unroutable=keep&name=n&max_message_bytes=7&publish_channels=3&confirm_window=9&connect_timeout=2s&heartbeat=4s&auth_mechanism=external",
			Config{
				URLs: []string{"amqps://h/"}, Exchange: "e", QueueType: Classic, Topology: Verify, Unroutable: Keep, Name: "n",
				MaxMessageBytes: 7, PublishChannels: 3, ConfirmWindow: 9, ConnectTimeout: 2 * time.Second, Heartbeat: 4 * time.Second, External: true,
			},
		},
	} {
		u, err := url.Parse(c.url)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseURL(u)
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		if diff := cmp.Diff(c.want, got, cmpopts.IgnoreFields(Config{}, "OnUnroutable", "Dial", "TLS", "Logger")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.url, diff)
		}
	}
}

func TestOpenReportsEveryFaultOfItsURL(t *testing.T) {
	t.Parallel()
	for rawURL, want := range map[string][]string{
		"amqp://u:secret@h/?queue_type=stream&topology=x&unroutable=y": {"QueueType", "Topology", "Unroutable"},
		"amqp://u:secret@h/?prefetch=7&heartbeat=soon&confirm_window=0": {
			`unknown parameter "prefetch"; known are auth_mechanism`, "parameter heartbeat is \"soon\": it takes a duration", "parameter confirm_window is \"0\": it takes a whole number",
		},
		"amqp://u:secret@h/?auth_mechanism=kerberos":              {"it takes plain or external"},
		"amqps://u:secret@h/?cacertfile=/no/such/file":            {"cacertfile"},
		"amqps://u:secret@h/?certfile=/no/such/file":              {"certfile and keyfile"},
		"amqp://u:secret@h/#fragment":                             {"amqp://user:password@host:5672/vhost"},
		"amqp://u:secret@h/?exchange=" + strings.Repeat("x", 256): {"Exchange has 256 bytes"},
	} {
		_, err := transports.Open(t.Context(), rawURL)
		if !errors.Is(err, transports.ErrInvalidURL) {
			t.Errorf("%.60s: %v; want ErrInvalidURL", rawURL, err)
			continue
		}
		for _, text := range want {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%.60s: want %q in:\n%v", rawURL, text, err)
			}
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error has the password: %v", err)
		}
	}
}

func TestOpenReportsEveryFaultOfItsConfig(t *testing.T) {
	t.Parallel()
	_, err := Open(t.Context(), Config{
		URLs:     []string{"amqp://u:secret@h:x", "http://h", "amqp://u:secret@h/?heartbeat=1s", "%zz"},
		Exchange: strings.Repeat("x", 256), QueueType: "a", Topology: "b", Unroutable: "c",
		MaxMessageBytes: -1, PublishChannels: -1, ConfirmWindow: -1, ConnectTimeout: -1, Heartbeat: time.Millisecond,
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"URLs[0] is malformed", "URLs[1] has another scheme", "URLs[2] has parameters", "URLs[3] is malformed",
		"Exchange has", "QueueType is", "Topology is", "Unroutable is", "MaxMessageBytes is", "PublishChannels is", "ConfirmWindow is", "ConnectTimeout is", "Heartbeat is",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the error has the password: %v", err)
	}
	if _, err := Open(t.Context(), Config{}); err == nil || !strings.Contains(err.Error(), "URLs is empty") {
		t.Errorf("without URLs: %v", err)
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	for rawURL, want := range map[string]login{
		"amqp://h":              {"guest", "guest", "/"},
		"amqp://h/":             {"guest", "guest", "/"},
		"amqp://h/%2f":          {"guest", "guest", "/"},
		"amqp://h/shop":         {"guest", "guest", "shop"},
		"amqp://h/a%2fb":        {"guest", "guest", "a/b"},
		"amqp://u%40x:p%3ay@h/": {"u@x", "p:y", "/"},
		"amqp://u@h/":           {"u", "", "/"},
	} {
		nodes, got, err := parseNodes([]string{rawURL})
		if err != nil {
			t.Fatal(err)
		}
		if got != want || nodes[0] != (node{"h", "h:5672", false}) {
			t.Errorf("%s: %+v at %+v; want %+v", rawURL, got, nodes, want)
		}
	}
	nodes, _, err := parseNodes([]string{"amqps://h", "amqp://:7", "amqp://[::1]"})
	want := []node{{"h", "h:5671", true}, {"localhost", "localhost:7", false}, {"::1", "[::1]:5672", false}}
	if diff := cmp.Diff(want, nodes, cmp.AllowUnexported(node{})); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("amqp://u:p@one,two:5673/v?exchange=e&heartbeat=4s")
	f.Add("amqps://[::1]:5671/%2f?cacertfile=x")
	f.Add("amqp:opaque")
	f.Add("amqp://,,:1/?name=%")
	f.Fuzz(func(t *testing.T, rawURL string) {
		u, err := url.Parse(rawURL)
		if err != nil {
			return
		}
		cfg, err := parseURL(u)
		if err != nil {
			return
		}
		if _, _, err := parseNodes(cfg.URLs); err != nil && u.Scheme == "amqp" && !strings.Contains(err.Error(), "malformed") {
			t.Errorf("%q is accepted, and %q is not: %v", rawURL, cfg.URLs, err)
		}
	})
}

// unreachable is an address that nobody listens at.
const unreachable = "amqp://guest:secret@127.0.0.1:1/"

func TestOpenFailsInTime(t *testing.T) {
	t.Parallel()
	started := time.Now()
	_, err := Open(t.Context(), Config{URLs: []string{unreachable}, ConnectTimeout: 300 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "no broker answered within 300ms") || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("the error is %v", err)
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the error has the password: %v", err)
	}
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errSample)
	if _, err := Open(ctx, Config{URLs: []string{unreachable}}); !errors.Is(err, errSample) {
		t.Errorf("with an ended context: %v", err)
	}
}

var errSample = errors.New("sample")
