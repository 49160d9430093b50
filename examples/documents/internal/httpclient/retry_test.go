package httpclient

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

func TestRetriesWithBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := serve(down, cut, answer{status: 429}, fine)
		got, err := get(t.Context(), client(t, s))
		if err != nil || got.Text != "fine" {
			t.Errorf("got %v, %v", got, err)
		}
		wantTries(t, s, 2*time.Second, 4*time.Second, 8*time.Second)
	})
}

func TestJitter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seen := make(map[time.Duration]bool)
		for range 20 {
			s := serve(down, fine)
			if _, err := get(t.Context(), client(t, s)); err != nil {
				t.Fatal(err)
			}
			seen[s.at[1]] = true
		}
		if len(seen) < 15 {
			t.Errorf("20 calls came again after %d different times", len(seen))
		}
	})
}

func TestGivesUpAfterThreeRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := serve(down)
		_, err := get(t.Context(), client(t, s))
		wantKind(t, err, ErrUnavailable)
		e := asError(t, err)
		if e.Status != 503 || e.Tries != 4 || string(e.Body) != "busy" {
			t.Errorf("error is %+v", e)
		}
		if want := "ocr: GET /v1/texts/42: unavailable: 503 Service Unavailable"; err.Error() != want {
			t.Errorf("error is %q, want %q", err, want)
		}
		wantTries(t, s, 2*time.Second, 4*time.Second, 8*time.Second)
	})
}

func TestOnlyWhatMayBeRepeatedIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for method, want := range map[string]int{"GET": 4, "HEAD": 4, "PUT": 4, "DELETE": 4, "POST": 1, "PATCH": 1} {
			s := serve(down)
			if _, err := Do(t.Context(), client(t, s), Request[text]{Method: method, Path: "/"}); err == nil {
				t.Errorf("%s: no error", method)
			}
			if s.tries() != want {
				t.Errorf("%s: %d tries, want %d", method, s.tries(), want)
			}
		}
		s := serve(down, cut, fine)
		got, err := post(t.Context(), client(t, s), "key-1")
		if err != nil || got.Text != "fine" {
			t.Errorf("got %v, %v", got, err)
		}
		for i, req := range s.got {
			if req.Header.Get("Idempotency-Key") != "key-1" || s.body[i] != `{"text":"new"}` {
				t.Errorf("try %d has key %q and body %q", i+1, req.Header.Get("Idempotency-Key"), s.body[i])
			}
		}
		if len(s.got) != 3 {
			t.Errorf("%d tries, want 3", len(s.got))
		}
	})
}

func TestWhatIsNotRepeated(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer answer
		kind   error
	}{
		"not found":         {answer{status: 404}, ErrRefused},
		"unauthorized":      {answer{status: 401}, ErrRefused},
		"not implemented":   {answer{status: 501}, ErrRefused},
		"redirected":        {answer{status: 302, header: map[string]string{"Location": "/"}}, ErrRefused},
		"no JSON":           {answer{status: 200, body: "<html>"}, ErrMalformed},
		"other JSON":        {answer{status: 200, body: `{"text": 4711}`}, ErrMalformed},
		"not trusted":       {answer{err: &tls.CertificateVerificationError{Err: errors.New("expired")}}, ErrUnavailable},
		"asks for too long": {answer{status: 429, header: map[string]string{"Retry-After": "31"}}, ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := serve(tt.answer)
				_, err := get(t.Context(), client(t, s))
				wantKind(t, err, tt.kind)
				wantTries(t, s)
			})
		})
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]func() string{
		"seconds": func() string { return "7" },
		"date":    func() string { return time.Now().Add(7 * time.Second).UTC().Format(http.TimeFormat) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := serve(answer{status: 429, header: map[string]string{"Retry-After": header()}}, fine)
				if _, err := get(t.Context(), client(t, s)); err != nil {
					t.Fatal(err)
				}
				if wait := s.at[1]; wait < 7*time.Second || wait > 8*time.Second {
					t.Errorf("came again after %v, asked for 7s", wait)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) { // the last one is told to the caller
		s := serve(answer{status: 503, header: map[string]string{"Retry-After": "40"}})
		_, err := get(t.Context(), client(t, s))
		wantKind(t, err, ErrUnavailable)
		if e := asError(t, err); e.RetryAfter != 40*time.Second {
			t.Errorf("RetryAfter is %v, want 40s", e.RetryAfter)
		}
	})
}

func TestTryTimeout(t *testing.T) {
	t.Parallel()
	for name, slow := range map[string]answer{
		"no answer": hanging,
		"slow body": {status: 200, body: `{"text":"late"}`, slow: time.Hour},
		"gateway":   {status: 504, after: 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := serve(slow)
				_, err := post(t.Context(), client(t, s), "")
				wantKind(t, err, ErrTimedOut)
				if took := time.Since(s.t0); took != 10*time.Second {
					t.Errorf("took %v, want 10s", took)
				}
				wantTries(t, s)
			})
		})
	}
}

func TestTimeoutInAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := serve(hanging)
		_, err := get(t.Context(), client(t, s))
		wantKind(t, err, ErrTimedOut)
		if e := asError(t, err); e.Tries != 3 {
			t.Errorf("%d tries, want 3", e.Tries)
		}
		if took := time.Since(s.t0); took != 30*time.Second {
			t.Errorf("took %v, want 30s", took)
		}
	})
	synctest.Test(t, func(t *testing.T) { // while it waits for a retry
		s := serve(down)
		_, err := get(t.Context(), client(t, s, func(c *Config) { c.Timeout, c.TryTimeout = 5*time.Second, time.Second }))
		wantKind(t, err, ErrTimedOut)
		if want := "ocr: GET /v1/texts/42: timed out: context deadline exceeded (last try: 503 Service Unavailable)"; err.Error() != want {
			t.Errorf("error is %q, want %q", err, want)
		}
		if took := time.Since(s.t0); took != 5*time.Second {
			t.Errorf("took %v, want 5s", took)
		}
	})
}

func TestCallerGoes(t *testing.T) {
	t.Parallel()
	for name, a := range map[string]answer{"in a try": hanging, "while it waits": down} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer time.AfterFunc(time.Second, cancel).Stop()
				s := serve(a)
				_, err := get(ctx, client(t, s))
				wantKind(t, err, nil)
				if !errors.Is(err, context.Canceled) {
					t.Errorf("error is %v, want context.Canceled", err)
				}
				if took := time.Since(s.t0); took != time.Second {
					t.Errorf("took %v, want 1s", took)
				}
				wantTries(t, s)
			})
		})
	}
}
