package httpclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/fallback"
	"github.com/google/uuid"
)

// Request is a call that is answered with an Out, as JSON.
type Request[Out any] struct {
	Method string     // such as http.MethodGet
	Path   string     // begins with a slash, and is escaped: "/payments/" + url.PathEscape(id)
	Query  url.Values // is not logged
	Body   any        // sent as JSON; nil: no body

	// IdempotencyKey is sent with the call. The same key means the same call, so that it
	// can be repeated whatever its method.
	IdempotencyKey string

	// Fallback, if set, answers when the service is unavailable or times out, cause saying
	// why. It must not call the same service.
	Fallback func(ctx context.Context, cause error) (Out, error)
}

// Do makes a call and returns its answer: the zero value for one without a body. An error is
// an [*Error], or that of a request which can't be made.
func Do[Out any](ctx context.Context, c *Client, r Request[Out]) (Out, error) {
	if r.Fallback == nil {
		return do(ctx, c, r)
	}
	instead := fallback.NewBuilderWithFunc(func(exec failsafe.Execution[Out]) (Out, error) {
		return r.Fallback(ctx, exec.LastError())
	}).HandleErrors(ErrUnavailable, ErrTimedOut).Build()
	// Without ctx: a fallback is of use also to a caller whose deadline has passed.
	return failsafe.With(instead).Get(func() (Out, error) { return do(ctx, c, r) })
}

func do[Out any](ctx context.Context, c *Client, r Request[Out]) (Out, error) {
	var out Out
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	call := &call{id: requestID(ctx)}
	req, err := newRequest(context.WithValue(ctx, callKey{}, call), c, r)
	if err != nil {
		return out, fmt.Errorf("%s: %s %s: %w", c.cfg.Name, r.Method, r.Path, err)
	}
	res, err := c.send(req)
	var body []byte
	if err == nil {
		body, err = io.ReadAll(res.Body) // from memory
	}
	if err != nil || kindOf(res, nil) != nil {
		return out, c.newError(req, call, res, body, err)
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return out, nil
	}
	if err := json.Unmarshal(body, &out); err != nil {
		var zero Out
		return zero, c.newError(req, call, res, body, fmt.Errorf("%w: %w", ErrMalformed, withoutData(err)))
	}
	return out, nil
}

func newRequest[Out any](ctx context.Context, c *Client, r Request[Out]) (*http.Request, error) {
	if !strings.HasPrefix(r.Path, "/") || strings.ContainsAny(r.Path, "?#") {
		return nil, errors.New("the path does not begin with a slash, or has a query")
	}
	var body io.Reader
	if r.Body != nil {
		data, err := json.Marshal(r.Body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, strings.TrimSuffix(c.base.String(), "/")+r.Path, body)
	if err != nil {
		return nil, err
	}
	req.URL.RawQuery = r.Query.Encode()
	req.Header.Set("Accept", "application/json")
	if r.Body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.IdempotencyKey != "" {
		req.Header.Set(idempotencyKey, r.IdempotencyKey)
	}
	req.Header.Set("X-Request-ID", callOf(ctx).id)
	return req, nil
}

func (c *Client) newError(req *http.Request, call *call, res *http.Response, body []byte, cause error) *Error {
	e := &Error{
		Service: c.cfg.Name, Method: req.Method, Path: req.URL.Path, RequestID: call.id, Tries: call.tries,
		kind: kindOf(res, cause), cause: cause, last: call.last,
	}
	if errors.Is(cause, circuitbreaker.ErrOpen) {
		e.RetryAfter = c.breaker.RemainingDelay()
	}
	if res != nil {
		e.Status = res.StatusCode
		e.RetryAfter = retryAfter(res)
		e.Body = bytes.Clone(body[:min(len(body), maxErrorBody)])
	}
	return e
}

// withoutData returns err unless its text quotes what could not be read.
func withoutData(err error) error {
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("no JSON at byte %d", syntax.Offset)
	case errors.As(err, &mismatch):
		return fmt.Errorf("field %q at byte %d is no %v", mismatch.Field, mismatch.Offset, mismatch.Type)
	}
	return errors.New("it can't be decoded") // by a type's own UnmarshalJSON
}

// call is what its tries share.
type call struct {
	id    string // request id
	tries int
	last  string // outcome of the last one
}

type (
	callKey      struct{}
	requestIDKey struct{}
)

func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) } //nolint:forcetypeassert // do has put it there

// WithRequestID gives the calls that are made with the context an id: that of the request
// which they are made for. Without it each call gets a new one.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

func requestID(ctx context.Context) string {
	if id, _ := ctx.Value(requestIDKey{}).(string); id != "" {
		return id
	}
	return uuid.NewString()
}
