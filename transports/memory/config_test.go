package memory

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/transports"
)

func TestConfigReportsEveryFault(t *testing.T) {
	t.Parallel()
	cfg := Config{QueueSize: -1, MaxMessageBytes: -2, PoisonSize: -3}
	_, fromNew := New(cfg)
	_, fromNewBroker := NewBroker(cfg)
	for _, err := range []error{fromNew, fromNewBroker} {
		for _, want := range []string{"QueueSize is -1", "MaxMessageBytes is -2", "PoisonSize is -3"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v; want it to say %q", err, want)
			}
		}
	}
}

func TestConfigDefaults(t *testing.T) {
	t.Parallel()
	want := Config{QueueSize: 10_000, MaxMessageBytes: 16 << 20, PoisonSize: 1_000_000}
	if diff := cmp.Diff(want, newBroker(t, Config{}).cfg); diff != "" {
		t.Error(diff)
	}
}

func TestURLSetsConfig(t *testing.T) {
	t.Parallel()
	defaults := Config{}.withDefaults()
	for url, want := range map[string]Config{
		"memory://":             defaults,
		"memory:":               defaults,
		"memory:///":            defaults,
		"MEMORY://":             defaults,
		"memory://?":            defaults,
		"memory://?queue_size=": {}, // refused
		"memory://?queue_size=7&max_message_bytes=8&poison_size=9": {QueueSize: 7, MaxMessageBytes: 8, PoisonSize: 9},
		"memory:///?queue_size=%37":                                {QueueSize: 7, MaxMessageBytes: defaults.MaxMessageBytes, PoisonSize: defaults.PoisonSize},
	} {
		tr, err := transports.Open(t.Context(), url)
		if err != nil {
			if want != (Config{}) {
				t.Errorf("%s: %v", url, err)
			}
			continue
		}
		if diff := cmp.Diff(want, tr.(*Transport).broker.cfg); diff != "" {
			t.Errorf("%s: %s", url, diff)
		}
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestURLFaultsAreSaid(t *testing.T) {
	t.Parallel()
	for url, wants := range map[string][]string{
		"memory://?queue=1":                          {`unknown parameter "queue"`, "queue_size, max_message_bytes and poison_size"},
		"memory://?queue_size=0":                     {`queue_size is "0"`, "at least 1"},
		"memory://?queue_size=-1":                    {`queue_size is "-1"`},
		"memory://?queue_size=1e3":                   {`queue_size is "1e3"`},
		"memory://?queue_size=many":                  {`queue_size is "many"`},
		"memory://?poison_size=99999999999999999999": {`poison_size is "99999999999999999999"`},
		"memory://?queue_size=0&poison_size=0&x=1":   {"queue_size", "poison_size", `"x"`},
		"memory://?queue_size=%zz":                   {"parameters"},
		"memory://?a=1;b=2":                          {"parameters"},
		"memory://localhost":                         {"memory:// with optional parameters only"},
		"memory://user:secret@":                      {"memory:// with optional parameters only"},
		"memory://localhost/vhost?queue_size=1":      {"memory:// with optional parameters only"},
		"memory:///path":                             {"memory:// with optional parameters only"},
		"memory:opaque":                              {"memory:// with optional parameters only"},
		"memory://#fragment":                         {"memory:// with optional parameters only"},
	} {
		tr, err := transports.Open(t.Context(), url)
		if err == nil {
			t.Errorf("%s was accepted", url)
			_ = tr.Close()
			continue
		}
		for _, want := range append(wants, "open memory transport") {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v; want it to say %q", url, err, want)
			}
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error has the password: %v", url, err)
		}
	}
}
