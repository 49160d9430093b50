package httpclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// Kinds of an [*Error], for errors.Is.
var (
	// ErrUnavailable: the service can't be reached, has failed or has no room, or its
	// circuit is open. It may work later.
	ErrUnavailable = errors.New("unavailable")

	// ErrTimedOut: there was no answer in time. The service may have done what was asked.
	ErrTimedOut = errors.New("timed out")

	// ErrRefused: the service has answered that it will not, and would so again.
	ErrRefused = errors.New("refused")

	// ErrMalformed: the answer is too long, or not the JSON that was expected.
	ErrMalformed = errors.New("malformed answer")
)

// Error is the failure of a call.
type Error struct {
	Service      string
	Method, Path string // the path without its query
	RequestID    string
	Tries        int           // that were made; 0 while the circuit is open
	Status       int           // of the last answer; 0 without one
	RetryAfter   time.Duration // that the service has asked for, or until an open circuit lets calls through
	Body         []byte        // of an answer, at most 4 KiB; it may hold what must not be logged
	kind         error         // nil when the caller has gone
	cause        error         // nil when Status says it all
	last         string        // outcome of the last try
}

// maxErrorBody is what is kept of the body of an answer, in bytes.
const maxErrorBody = 4 << 10

// Error tells the kind, the cause and the request, but nothing of headers, query or bodies.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s %s", e.Service, e.Method, e.Path)
	if e.kind != nil && !errors.Is(e.cause, e.kind) {
		fmt.Fprintf(&b, ": %v", e.kind)
	}
	switch {
	case e.cause != nil:
		fmt.Fprintf(&b, ": %v", e.cause)
		if e.last != "" && !strings.Contains(e.cause.Error(), e.last) {
			fmt.Fprintf(&b, " (last try: %s)", e.last)
		}
	case e.Status != 0:
		fmt.Fprintf(&b, ": %s", statusText(e.Status))
	}
	return b.String()
}

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.kind, e.cause} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// kindOf sorts the outcome of a try or of a call. nil is success, or a caller who has gone.
func kindOf(res *http.Response, err error) error {
	if err != nil {
		var timeout net.Error
		switch {
		case errors.Is(err, context.Canceled):
			return nil
		case errors.Is(err, ErrMalformed):
			return ErrMalformed
		case errors.As(err, &timeout) && timeout.Timeout(): // context.DeadlineExceeded too
			return ErrTimedOut
		}
		return ErrUnavailable
	}
	switch status := res.StatusCode; {
	case status >= 200 && status < 300:
		return nil
	case status == http.StatusGatewayTimeout, status == http.StatusRequestTimeout:
		return ErrTimedOut
	case serverError(status), status == http.StatusTooManyRequests:
		return ErrUnavailable
	}
	return ErrRefused
}
