package fingerprint_test

import (
	"strings"
	"testing"

	"github.com/gotidings/tidings/internal/fingerprint"
)

func TestTheSameFaultHasTheSameFingerprint(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		a, b string
		same bool
	}{
		"equal":               {"boom", "boom", true},
		"numbers":             {"order 17 has no customer", "order 18123 has no customer", true},
		"ids":                 {"event 0192f0c1-77aa-7bbb-8ccc-1234567890ab is late", "event 0192f0c1-0000-7bbb-8ccc-abcdef123456 is late", true},
		"quoted names":        {`no customer "Ada \"L\" Lovelace" here`, `no customer "Bob" here`, true},
		"a quote left open":   {`unexpected "abc`, `unexpected "xyz and more`, true},
		"addresses":           {"dial tcp 10.0.0.1:5672: connection refused", "dial tcp 10.0.0.2:40001: connection refused", true},
		"times":               {"deadline 2026-11-24T10:00:00Z has passed", "deadline 2026-11-25T11:00:00Z has passed", true},
		"other words":         {"no customer", "no order", false},
		"only the tail":       {strings.Repeat("x", 600) + "a", strings.Repeat("x", 600) + "b", true},
		"beyond what is read": {strings.Repeat("é", 300), strings.Repeat("é", 301), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := fingerprint.Of("*errors.errorString", tt.a), fingerprint.Of("*errors.errorString", tt.b)
			if (a == b) != tt.same {
				t.Errorf("%q is %s (%s), %q is %s (%s); same should be %v", tt.a, a, fingerprint.Normal(tt.a), tt.b, b, fingerprint.Normal(tt.b), tt.same)
			}
			if len(a) != 8 {
				t.Errorf("%q has %d digits, want 8", a, len(a))
			}
		})
	}
	if fingerprint.Of("*a.Error", "boom") == fingerprint.Of("*b.Error", "boom") {
		t.Error("errors of two types have one fingerprint")
	}
}

func FuzzNormal(f *testing.F) {
	f.Add(`order 17: "x" é \`)
	f.Add(`"\`)
	f.Fuzz(func(t *testing.T, text string) {
		once := fingerprint.Normal(text)
		if len(once) > 3*512 {
			t.Errorf("%d bytes", len(once))
		}
		if len(text) <= 100 && fingerprint.Normal(once) != once {
			t.Errorf("%q becomes %q, and that %q", text, once, fingerprint.Normal(once))
		}
	})
}
