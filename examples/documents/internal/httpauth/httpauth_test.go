package httpauth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var key = bytes.Repeat([]byte("k"), 32)

// echo answers with the caller and the body.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	_, _ = io.WriteString(w, Caller(r.Context())+":"+string(body))
})

func verifier(t *testing.T, change ...func(*VerifierConfig)) http.Handler {
	t.Helper()
	cfg := VerifierConfig{Keys: map[string][]byte{"shop": key}, MaxBody: 1000}
	for _, f := range change {
		f(&cfg)
	}
	v, err := NewVerifier(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v.Require(echo)
}

// signed returns a request as it arrives, signed with a key.
func signed(t *testing.T, id string, key []byte, body string) *http.Request {
	t.Helper()
	out, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://ocr.internal:8080/texts/a%2Fb?lang=en&x=%20", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	out.Header.Set("Idempotency-Key", "k-1")
	if err := HMAC(id, key)(out); err != nil {
		t.Fatal(err)
	}
	in := httptest.NewRequestWithContext(t.Context(), out.Method, out.URL.String(), out.Body)
	in.Header = out.Header
	return in
}

func answer(h http.Handler, r *http.Request) (status int, body string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestSigned(t *testing.T) {
	t.Parallel()
	if status, body := answer(verifier(t), signed(t, "shop", key, "data")); status != 200 || body != "shop:data" {
		t.Errorf("got %d %q", status, body)
	}
}

func TestTurnedAway(t *testing.T) {
	t.Parallel()
	header := func(change func(string) string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", change(r.Header.Get("Authorization"))) }
	}
	replace := func(old, with string) func(*http.Request) {
		return header(func(h string) string {
			if !strings.Contains(h, old) {
				panic("no " + old + " in " + h)
			}
			return strings.Replace(h, old, with, 1)
		})
	}
	for name, change := range map[string]func(*http.Request){
		"method":          func(r *http.Request) { r.Method = http.MethodPut },
		"host":            func(r *http.Request) { r.Host = "other" },
		"path":            func(r *http.Request) { r.URL.RawPath, r.URL.Path = "", "/texts/c" },
		"escaped path":    func(r *http.Request) { r.URL.RawPath = "" },
		"query":           func(r *http.Request) { r.URL.RawQuery = "lang=de" },
		"body":            func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("date")) },
		"idempotency key": func(r *http.Request) { r.Header.Set("Idempotency-Key", "k-2") },
		"no header":       func(r *http.Request) { r.Header.Del("Authorization") },
		"bearer":          replace("HMAC-SHA256", "Bearer"),
		"unknown key":     replace(`"shop"`, `"thief"`),
		"no key":          replace(`key="shop", `, ""),
		"empty key":       replace(`"shop"`, `""`),
		"twice":           header(func(h string) string { return h + `, key="shop"` }),
		"one more":        header(func(h string) string { return h + `, x="y"` }),
		"other time":      replace(`time="`, `time="1`),
		"other nonce":     replace(`nonce="`, `nonce="1`),
		"empty signature": header(func(h string) string { before, _, _ := strings.Cut(h, `signature="`); return before + `signature=""` }),
		"shorter":         header(func(h string) string { return h[:len(h)-3] + `"` }),
		"not quoted":      replace(`"shop"`, `shop`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := signed(t, "shop", key, "data")
			change(r)
			w := httptest.NewRecorder()
			verifier(t).ServeHTTP(w, r)
			if w.Code != http.StatusUnauthorized || w.Header().Get("WWW-Authenticate") != "HMAC-SHA256" || strings.Contains(w.Body.String(), "data") {
				t.Errorf("got %d %q", w.Code, w.Body.String())
			}
		})
	}
	for name, r := range map[string]*http.Request{
		"other key":              signed(t, "shop", bytes.Repeat([]byte("x"), 32), "data"),
		"unknown id, no secret":  signed(t, "thief", nil, "data"),
		"known key, unknown id":  signed(t, "thief", key, "data"),
		"id of another, own key": signed(t, "shop", nil, "data"),
	} {
		if status, _ := answer(verifier(t), r); status != http.StatusUnauthorized {
			t.Errorf("%s: got %d", name, status)
		}
	}
	if status, _ := answer(verifier(t), signed(t, "shop", key, strings.Repeat("x", 1001))); status != http.StatusRequestEntityTooLarge {
		t.Errorf("too long: got %d", status)
	}
}

// A request is taken once, as long as it could be taken at all.
func TestReplay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := verifier(t)
		first := signed(t, "shop", key, "data")
		replay := func() *http.Request {
			r := first.Clone(t.Context())
			r.Body = io.NopCloser(strings.NewReader("data"))
			return r
		}
		if status, _ := answer(h, replay()); status != 200 {
			t.Fatalf("got %d", status)
		}
		for range 20 {
			if status, _ := answer(h, replay()); status != http.StatusUnauthorized {
				t.Fatalf("replayed: got %d", status)
			}
			time.Sleep(time.Minute)
			if status, _ := answer(h, signed(t, "shop", key, "data")); status != 200 {
				t.Fatalf("another one: got %d", status)
			}
		}
	})
}

// The clock of the sender goes four minutes ahead: its requests could be taken for longer,
// so their nonces are remembered for longer.
func TestReplayFromTheFuture(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := verifier(t)
		start := time.Now()
		request := func() *http.Request {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://ocr.internal/", http.NoBody)
			s := signature{key: "shop", time: strconv.FormatInt(start.Add(4*time.Minute).Unix(), 10), nonce: "n"}
			s.mac = s.sum(key, r, r.Host, sha256.New())
			r.Header.Set("Authorization", s.header())
			return r
		}
		if status, _ := answer(h, request()); status != 200 {
			t.Fatalf("got %d", status)
		}
		for range 20 {
			time.Sleep(30 * time.Second)
			if status, _ := answer(h, request()); status != 401 {
				t.Fatalf("taken again after %v", time.Since(start))
			}
		}
	})
}

func TestWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			late time.Duration
			want int
		}{{5 * time.Minute, 200}, {5*time.Minute + time.Second, 401}} {
			r := signed(t, "shop", key, "")
			time.Sleep(tt.late)
			if status, _ := answer(verifier(t), r); status != tt.want {
				t.Errorf("after %v: got %d, want %d", tt.late, status, tt.want)
			}
		}
	})
}

func TestNoncesAreBoundedAndForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := verifier(t, func(c *VerifierConfig) { c.MaxNonces = 2 })
		for range 5 { // strangers fill nothing
			if status, _ := answer(h, signed(t, "shop", nil, "")); status != 401 {
				t.Fatalf("got %d", status)
			}
		}
		for i, want := range []int{200, 200, 503} {
			if status, _ := answer(h, signed(t, "shop", key, "")); status != want {
				t.Errorf("request %d: got %d, want %d", i+1, status, want)
			}
		}
		time.Sleep(10*time.Minute + time.Second)
		if status, _ := answer(h, signed(t, "shop", key, "")); status != 200 {
			t.Errorf("when the others are forgotten: got %d", status)
		}
	})
}

func TestVerifierConfig(t *testing.T) {
	t.Parallel()
	for _, keys := range []map[string][]byte{nil, {"shop": []byte("short")}, {"a,b": key}, {"": key}} {
		if _, err := NewVerifier(VerifierConfig{Keys: keys}); err == nil {
			t.Errorf("keys %v are accepted", keys)
		}
	}
}

func TestBodyThatCannotBeSigned(t *testing.T) {
	t.Parallel()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x", io.MultiReader(strings.NewReader("x")))
	if err != nil {
		t.Fatal(err)
	}
	if err := HMAC("shop", key)(r); err == nil || r.Header.Get("Authorization") != "" {
		t.Errorf("error is %v", err)
	}
	r = httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://x", http.NoBody)
	if err := HMAC("a\"b", key)(r); err == nil || r.Header.Get("Authorization") != "" {
		t.Errorf("an id that the header can't hold: %v", err)
	}
}

// What is accepted is written again as something that means the same.
func FuzzParse(f *testing.F) {
	f.Add(signature{key: "shop", time: "1764014296", nonce: "N", mac: key}.header())
	f.Add(`HMAC-SHA256 key="a", time="1", nonce="x", signature=""`)
	f.Add(`hmac-sha256 signature="00",nonce="x" , key="a",time="-1"`)
	f.Add(`HMAC-SHA256 key="\x2c", time="1", nonce="x", signature="00"`)
	f.Add(`HMAC-SHA256 key=","`)
	f.Fuzz(func(t *testing.T, header string) {
		s, err := parse(header)
		if err != nil {
			return
		}
		again, err := parse(s.header())
		if err != nil || again.key != s.key || again.time != s.time || again.nonce != s.nonce || !bytes.Equal(again.mac, s.mac) {
			t.Errorf("%q is read as %+v, which is written as %q (%v)", header, s, s.header(), err)
		}
	})
}

func TestBearer(t *testing.T) {
	t.Parallel()
	h := RequireBearer(NewTokens(map[string]string{"t-1": "ada", "t-2": "bob", "": "nobody"}), echo)
	for header, want := range map[string]string{
		"Bearer t-1": "ada:", "bearer t-2": "bob:", "Bearer t-3": "", "Bearer ": "", "Bearer": "", "t-1": "", "Basic t-1": "", "": "", "Bearer t-1 ": "",
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
		r.Header.Set("Authorization", header)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch {
		case want != "" && (w.Code != 200 || w.Body.String() != want):
			t.Errorf("%q: got %d %q, want %q", header, w.Code, w.Body.String(), want)
		case want == "" && (w.Code != 401 || w.Header().Get("WWW-Authenticate") != "Bearer"):
			t.Errorf("%q: got %d %v", header, w.Code, w.Header())
		}
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
	if err := Bearer(StaticToken("t-1"))(r); err != nil {
		t.Fatal(err)
	}
	if status, body := answer(h, r); status != 200 || body != "ada:" {
		t.Errorf("got %d %q", status, body)
	}
	failing := func(context.Context) (string, error) { return "", errors.New("no token") }
	if err := Bearer(failing)(r); err == nil {
		t.Error("no error")
	}
}
