// Package payments is a client of a payment service: an example of a typed client on
// package httpclient.
//
//	POST /api/payments                 pays; 201, or 402 when it is declined
//	GET  /api/payments/{id}/status     404 when there is no such payment
//	POST /api/payments/{id}/refund
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

// path is that of a payment. An id that would make it another path is no id.
func path(id, what string) (string, error) {
	if id == "" || id == "." || id == ".." {
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
