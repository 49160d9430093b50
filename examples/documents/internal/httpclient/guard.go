package httpclient

import (
	"context"
	"errors"
	"net/http"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

// guard is the breaker's place in the chain.
//
// It is not failsafe's own, which makes a success or a failure of everything: a caller who
// goes away has seen neither, and must not close a circuit, nor keep it from opening.
type guard struct {
	breaker circuitbreaker.CircuitBreaker[any]
	next    http.RoundTripper
}

// RoundTrip makes a try if the breaker permits it, and tells the breaker of the outcome. A
// deadline of the caller that passes is a failure of the service.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if !g.breaker.TryAcquirePermit() {
		return nil, circuitbreaker.ErrOpen
	}
	trial := g.breaker.IsHalfOpen()
	res, err := g.next.RoundTrip(req)
	failed := unhealthy(res, err)
	gone := errors.Is(req.Context().Err(), context.Canceled)
	switch {
	case !trial && !g.breaker.IsClosed():
		// It began before the circuit opened, and says nothing of how things are now.
	case failed && gone && !trial:
		// Nothing was seen.
	case failed: // also a trial whose caller has gone, since its permit has to go back
		g.breaker.RecordFailure()
	default:
		g.breaker.RecordSuccess()
	}
	return res, err
}

// unhealthy says whether the outcome of a try is a failure of the service. A 429 is not: it
// is there, and says when to come again.
func unhealthy(res *http.Response, err error) bool {
	if err != nil {
		return !errors.Is(err, ErrMalformed) // which is an answer
	}
	return serverError(res.StatusCode)
}

// serverError says whether a status is a fault of the service that may be over later.
func serverError(status int) bool {
	return status >= http.StatusInternalServerError && status != http.StatusNotImplemented
}

// signer puts credentials on each try, afresh. A failure of that is not the service's, so
// the breaker does not see it.
type signer struct {
	auth func(*http.Request) error
	next http.RoundTripper
}

func (s *signer) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	if err := s.auth(req); err != nil {
		return nil, &authError{err}
	}
	// Without a copy of the body, net/http can't repeat the request on its own, with
	// credentials that have been used.
	req.GetBody = nil
	return s.next.RoundTrip(req)
}

// authError says that there are no credentials for a try.
type authError struct{ err error }

func (e *authError) Error() string { return "authenticate: " + e.err.Error() }
func (e *authError) Unwrap() error { return e.err }
