// Package payments is a client of a payment service: an example of a typed client on
// package httpclient.
//
//	POST /api/payments                 pays; 201, or 402 when it is declined
//	GET /api/payments/{id}/status      404 when there is no such payment
//	POST /api/payments/{id}/refund
//	DELETE /api/payments/keys/{key}    no payment is made with the key any more; 200 with the
//	                                   one that was made, 404 when none was
//
// Money moves once for each idempotency key, however often a call is repeated. So the key is
// that of the business, made before the first call and stored with it: the order's id, and
// never a new one for each call.
package payments

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/gotidings/tidings/examples/documents/internal/httpclient"
)

// Errors of a [Client], besides those of package httpclient.
var (
	// ErrNotFound: there is no such payment.
	ErrNotFound = errors.New("payment not found")

	// ErrDeclined: the payment was refused for a reason of its own, see [*DeclinedError].
	ErrDeclined = errors.New("payment declined")

	errNoKey = errors.New("payments: there is no idempotency key")
	errNoID  = errors.New("payments: there is no payment id")
)

// DeclinedError says why a payment was declined.
type DeclinedError struct {
	Reason string // a code of the service's, such as "insufficient_funds"
	err    error
}

func (e *DeclinedError) Error() string   { return fmt.Sprintf("%v: %s", ErrDeclined, e.Reason) }
func (e *DeclinedError) Unwrap() []error { return []error{ErrDeclined, e.err} }

// State is what has become of a payment.
type State string

// States of a payment.
const (
	Pending  State = "pending"
	Paid     State = "paid"
	Refunded State = "refunded"
)

// Order is what is to be paid.
type Order struct {
	Reference string `json:"reference"` // what it is for
	Amount    string `json:"amount"`    // an exact decimal, such as "19.90"
	Currency  string `json:"currency"`  // ISO 4217
}

// Payment is what the service knows of one.
type Payment struct {
	ID    string `json:"id"`
	State State  `json:"status"`
	Order
}

// Client calls a payment service.
type Client struct{ http *httpclient.Client }

// New makes a client.
func New(c *httpclient.Client) *Client { return &Client{c} }

// region pay

// Pay makes a payment, or returns the one that was made with the same key. After
// httpclient.ErrTimedOut or ErrUnavailable it is not known whether it was made: to call
// again with the same key is safe. The error of one that is declined is a [*DeclinedError].
func (c *Client) Pay(ctx context.Context, key string, order Order) (Payment, error) {
	if key == "" {
		return Payment{}, errNoKey
	}
	p, err := httpclient.Do(ctx, c.http, httpclient.Request[Payment]{
		Method: http.MethodPost, Path: "/api/payments", Body: order, IdempotencyKey: key,
	})
	return p, translate(err)
}

// endregion

// Status returns a payment, or [ErrNotFound].
func (c *Client) Status(ctx context.Context, id string) (Payment, error) {
	path, err := path(id, "status")
	if err != nil {
		return Payment{}, err
	}
	p, err := httpclient.Do(ctx, c.http, httpclient.Request[Payment]{Method: http.MethodGet, Path: path})
	return p, translate(err)
}

// Refund gives the money of a payment back, once for each key.
func (c *Client) Refund(ctx context.Context, key, id string) (Payment, error) {
	path, err := path(id, "refund")
	if err != nil {
		return Payment{}, err
	}
	if key == "" {
		return Payment{}, errNoKey
	}
	p, err := httpclient.Do(ctx, c.http, httpclient.Request[Payment]{Method: http.MethodPost, Path: path, IdempotencyKey: key})
	return p, translate(err)
}

// Cancel sees to it that no payment is made with a key any more, and returns the one that was
// made before, which is not changed, or [ErrNotFound]. It is for who has given up a Pay whose
// outcome is not known: the service may still be busy with it.
func (c *Client) Cancel(ctx context.Context, key string) (Payment, error) {
	if !segment(key) {
		return Payment{}, errNoKey
	}
	p, err := httpclient.Do(ctx, c.http, httpclient.Request[Payment]{Method: http.MethodDelete, Path: "/api/payments/keys/" + url.PathEscape(key)})
	return p, translate(err)
}

// segment reports whether s can be a part of a path, and does not make another one of it.
func segment(s string) bool { return s != "" && s != "." && s != ".." }

// path is that of a payment.
func path(id, what string) (string, error) {
	if !segment(id) {
		return "", errNoID
	}
	return "/api/payments/" + url.PathEscape(id) + "/" + what, nil
}

// translate gives answers that mean something here their own errors.
func translate(err error) error {
	var e *httpclient.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Status {
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case http.StatusPaymentRequired:
		var body struct{ Reason string }
		if json.Unmarshal(e.Body, &body) != nil || body.Reason == "" {
			body.Reason = "unknown"
		}
		return &DeclinedError{body.Reason, err}
	}
	return err
}
