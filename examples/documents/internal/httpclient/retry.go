package httpclient

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
)

const idempotencyKey = "Idempotency-Key"

// repeatable says whether a call may be made twice: RFC 9110, section 9.2.2, or because
// the service knows it again by its key.
func repeatable(req *http.Request) bool {
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return req.Header.Get(idempotencyKey) != ""
}

func retryPolicy(cfg Config) retrypolicy.RetryPolicy[*http.Response] {
	return retrypolicy.NewBuilder[*http.Response]().
		WithMaxRetries(cfg.MaxRetries).
		HandleIf(transient).
		AbortIf(func(res *http.Response, _ error) bool {
			return retryAfter(res) > cfg.Timeout // nobody would be there any more
		}).
		WithDelayFunc(func(exec failsafe.ExecutionAttempt[*http.Response]) time.Duration {
			if after := retryAfter(exec.LastResult()); after > 0 {
				return after + rand.N(after/10+1) // never before, and not all clients at once
			}
			delay := cfg.RetryDelay << exec.Retries()
			return delay - delay/4 + rand.N(delay/2+1)
		}).
		ReturnLastFailure().
		Build()
}

// transient says whether the outcome of a try may be another one later.
func transient(res *http.Response, err error) bool {
	if err == nil {
		return serverError(res.StatusCode) || res.StatusCode == http.StatusTooManyRequests
	}
	var (
		untrusted     *tls.CertificateVerificationError
		noCredentials *authError
	)
	switch {
	case errors.Is(err, context.Canceled),
		errors.Is(err, circuitbreaker.ErrOpen), // for longer than one would wait here
		errors.Is(err, bulkhead.ErrFull),
		errors.Is(err, ErrMalformed),
		errors.As(err, &untrusted),
		errors.As(err, &noCredentials):
		return false
	}
	return true
}

// retryAfter is how long a service asks to be left alone, 0 if it does not: RFC 9110,
// section 10.2.3.
func retryAfter(res *http.Response) time.Duration {
	if res == nil || res.StatusCode != http.StatusTooManyRequests && res.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	value := res.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}
