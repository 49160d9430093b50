package main

import (
	"bytes"
	"maps"
	"strings"
	"testing"
	"time"
)

func parse(t *testing.T, env map[string]string, args ...string) (config, error) {
	t.Helper()
	return parseConfig(args, func(name string) string { return env[name] }, &bytes.Buffer{})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	c, err := parse(t, nil)
	if err != nil || c.name != "documents" || !c.whole() || c.transport != "memory://" || c.delay != time.Second || len(c.key) < 32 || len(c.tokens) != 1 {
		t.Errorf("defaults: %+v, %v", c, err)
	}
	c, err = parse(t, map[string]string{"DOCUMENTS_NAME": "of-env", "DOCUMENTS_RETRY_DELAY": "7s"}, "-name", "of-flag")
	if err != nil || c.name != "of-flag" || c.retryDelay != 7*time.Second {
		t.Errorf("environment and flags: %+v, %v", c, err)
	}
	c, err = parse(t, nil, "-once", "-db", "sqlite:x.db")
	if err != nil || !c.once || c.addr != "127.0.0.1:0" || c.delay > 50*time.Millisecond || !c.passing || c.transport != "" {
		t.Errorf("-once: %+v, %v", c, err)
	}
	if c, err := parse(t, nil, "-once", "-name", "mine"); err != nil || c.name != "mine" || c.passing {
		t.Errorf("-once of a system that stays: %+v, %v", c, err)
	}
}

func TestConfigFaults(t *testing.T) {
	t.Parallel()
	const key = "a key of at least thirty-two characters"
	for _, test := range []struct {
		args []string
		want []string // in the error
	}{
		{[]string{"-role", "api,cook"}, []string{`-role: "cook" is no role`}},
		{[]string{"-name", "A"}, []string{"-name"}},
		{[]string{"-addr", "8080", "-delay", "1"}, []string{"-addr: it takes a host and a port", "-delay: it takes a time"}}, // all faults
		{[]string{"-faults", "NaN"}, []string{"-faults"}},
		{[]string{"-db", "mysql://localhost/x"}, []string{`-db: its scheme is "mysql"`}},
		{[]string{"-transport", "kafka://x"}, []string{`-transport: its scheme is "kafka"`}},
		{[]string{"-analysis", "http://x"}, []string{"-analysis"}},
		{[]string{"-key", "short"}, []string{"-key"}},
		{[]string{"-tokens", "short=ada"}, []string{"-tokens"}},
		{[]string{"-db", "sqlite:x.db", "-transport", "memory://"}, []string{"forgets"}},
		{[]string{"-role", "worker"}, []string{"-db is required", "-analysis and -payments are required", "-key is required"}},
		{[]string{"-role", "api", "-db", "sqlite:x.db"}, []string{"-tokens is required"}},
		{[]string{"-role", "services", "-once", "-db", "sqlite:x.db", "-key", key}, []string{"-once needs all roles"}},
		{[]string{"more"}, []string{`unexpected argument "more"`}},
	} {
		_, err := parse(t, nil, test.args...)
		for _, want := range test.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: error %v has no %q", test.args, err, want)
			}
		}
	}
	if _, err := parse(t, map[string]string{"DOCUMENTS_ADDR": "x"}); err == nil || !strings.Contains(err.Error(), "DOCUMENTS_ADDR") {
		t.Errorf("a fault of the environment: %v", err)
	}
}

// Secrets are in no error.
func TestConfigSecrets(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"-db", "postgres://u:s3cret@host:bad/x"},
		{"-transport", "amqp://u:s3cret@host:bad/"},
		{"-transport", "kafka://u:s3cret@host/"},
		{"-tokens", "s3cret"},
		{"-key", "s3cret"},
	} {
		if _, err := parse(t, nil, args...); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", args[0], err)
		}
	}
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	for want, args := range map[int][]string{0: {"-help"}, exitUsage: {"-role", "cook"}, exitFailed: {"-once", "-input", "does-not-exist"}} {
		var stdout, stderr bytes.Buffer
		if got := run(t.Context(), args, noEnv, &stdout, &stderr); got != want {
			t.Errorf("%q: exit status %d, want %d: %s", args, got, want, &stderr)
		}
	}
}

// A token may have what base64 has, a user may have two, and the first of them is used.
func TestTokens(t *testing.T) {
	t.Parallel()
	cfg, err := parse(t, nil, "-tokens", "second-token==bob,YmFzZTY0Cg===ada,other-token=ada,third-token=bob")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"second-token=": "bob", "YmFzZTY0Cg==": "ada", "other-token": "ada", "third-token": "bob"}
	if !maps.Equal(cfg.tokens, want) {
		t.Errorf("tokens are %q", cfg.tokens)
	}
	for range 20 { // maps have no order
		if token, user := (&service{cfg: cfg}).demoUser(); token != "YmFzZTY0Cg==" || user != "ada" {
			t.Fatalf("%s has %s", user, token)
		}
	}
	for _, bad := range []string{"second-token", "second-token=", "=ada", "second-token=ada="} {
		if _, err := parse(t, nil, "-tokens", bad); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}
