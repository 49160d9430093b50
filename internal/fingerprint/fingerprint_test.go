package fingerprint

import (
	"strings"
	"testing"
	"unicode"
)

func TestNormalize(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]string{
		"":                  "",
		"no such order":     "no such order",
		"order 42 is gone":  "order # is gone",
		"order -4.5 of 1e6": "order -# of #",
		"can't be read":     "can't be read",
		`customer "ada 1" and 'bob' and ` + "`eve`":                      `customer "…" and "…" and "…"`,
		`a "quoted \" one" ends`:                                         `a "…" ends`,
		`an open "quote 7`:                                               `an open "quote #`,
		"id 0195f3a2-7c1e-7abc-8def-0123456789ab":                        "id #",
		"id abcdefab-cdef-abcd-efab-cdefabcdefab":                        "id #",
		"dial tcp 10.0.0.1:5672: i/o timeout after 1.5s":                 "dial tcp #: i/o timeout after #",
		"at 2026-11-24T15:04:05.123+01:00 it ended":                      "at # it ended",
		"digest deadbeefcafe, address 0xc000123abc":                      "digest #, address #",
		"ids 1, 2, 3 are missing":                                        "ids # are missing",
		"order-42 and order_43":                                          "order-# and order-#",
		"two\n  lines\tand   spaces  ":                                   "two lines and spaces",
		"connection_reset by peer":                                       "connection-reset by peer",
		"Zähler ٣ läuft":                                                 "Zähler # läuft",
		"HTTP 503, retry":                                                "HTTP #, retry",
		"ends with 7.":                                                   "ends with #",
		"panic: runtime error: index out of range [7] with length 3":     "panic: runtime error: index out of range [#] with length #",
		"ERROR: duplicate key (SQLSTATE 23505): Key (id)=(17) is there.": "ERROR: duplicate key (SQLSTATE #): Key (id)=(#) is there.",
	} {
		if got := normalize(reason); got != want {
			t.Errorf("normalize(%q)\n got %q\nwant %q", reason, got, want)
		}
	}
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	if a, b := Of("*T", "order 1 is gone"), Of("*T", "order 23 is gone"); a != b {
		t.Errorf("one fault has the fingerprints %s and %s", a, b)
	}
	if a, b := Of("*T", "order 1 is gone"), Of("*T", "order 1 is closed"); a == b {
		t.Errorf("two reasons have the fingerprint %s", a)
	}
	if a, b := Of("*T", "order 1 is gone"), Of("*U", "order 1 is gone"); a == b {
		t.Errorf("two types have the fingerprint %s", a)
	}
	// Operators write them into scripts and runbooks.
	if got, want := Of("*errors.errorString", "no such order"), "38380c54"; got != want {
		t.Errorf("fingerprint %s, want %s as ever", got, want)
	}
	long := strings.Repeat("order 1 and ", 1000)
	if a, b := Of("", long), Of("", long[:5000]); a != b {
		t.Error("a reason that was cut off has another fingerprint")
	}
}

// A value's digits do not matter, and no digit is left.
func FuzzNormalize(f *testing.F) {
	for _, seed := range []string{
		"order 42 is gone", "10.0.0.1:5672", `"a\"1" 'x'y' 7`, "a-1_b-2", "0195f3a2-7c1e-7abc-8def-0123456789ab", "1, 2,3 ,4", "\xff\x00 1", "٣",
	} {
		f.Add(seed, byte(3))
	}
	f.Fuzz(func(t *testing.T, reason string, by byte) {
		other := []byte(reason)
		for i, c := range other {
			if c >= '0' && c <= '9' {
				other[i] = '0' + (c-'0'+by%10)%10
			}
		}
		got := normalize(reason)
		if changed := normalize(string(other)); changed != got {
			t.Errorf("normalize(%q) = %q, normalize(%q) = %q", reason, got, other, changed)
		}
		if strings.ContainsFunc(got, unicode.IsDigit) {
			t.Errorf("normalize(%q) = %q has a digit", reason, got)
		}
	})
}
