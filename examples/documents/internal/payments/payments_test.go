package payments_test

import (
	"bytes"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gotidings/tidings/examples/documents/internal/httpauth"
	"github.com/gotidings/tidings/examples/documents/internal/httpclient"
	"github.com/gotidings/tidings/examples/documents/internal/payments"
	"github.com/gotidings/tidings/examples/documents/internal/payments/paymentstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var order = payments.Order{Reference: "doc-1", Amount: "19.90", Currency: "EUR"}

// newClient makes a client of a service, which asks for signed requests.
func newClient(t *testing.T, s *paymentstest.Server) *payments.Client {
	t.Helper()
	key := bytes.Repeat([]byte("k"), 32)
	verifier, err := httpauth.NewVerifier(httpauth.VerifierConfig{Keys: map[string][]byte{"documents": key}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(verifier.Require(s))
	t.Cleanup(server.Close)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := httpclient.New(httpclient.Config{
		Name: "payments", BaseURL: server.URL, Transport: transport, RetryDelay: time.Millisecond, BreakerFailures: 100,
		Auth: httpauth.HMAC("documents", key),
	})
	if err != nil {
		t.Fatal(err)
	}
	return payments.New(c)
}

func TestPayAndRefund(t *testing.T) {
	t.Parallel()
	var s paymentstest.Server
	c := newClient(t, &s)
	paid, err := c.Pay(t.Context(), "order-1", order)
	if want := (payments.Payment{ID: "pay-1", State: payments.Paid, Order: order}); err != nil || paid != want {
		t.Fatalf("got %+v, %v, want %+v", paid, err, want)
	}
	if got, err := c.Status(t.Context(), paid.ID); err != nil || got != paid {
		t.Errorf("status: %+v, %v", got, err)
	}
	refunded, err := c.Refund(t.Context(), "refund-1", paid.ID)
	if err != nil || refunded.State != payments.Refunded {
		t.Errorf("refund: %+v, %v", refunded, err)
	}
	if got, err := c.Status(t.Context(), paid.ID); err != nil || got != refunded {
		t.Errorf("status: %+v, %v", got, err)
	}
}

// With a key that was cancelled nothing is paid; what was paid before is told, as it is.
func TestCancel(t *testing.T) {
	t.Parallel()
	var s paymentstest.Server
	c := newClient(t, &s)
	for range 2 {
		if _, err := c.Cancel(t.Context(), "order-1"); !errors.Is(err, payments.ErrNotFound) {
			t.Errorf("before it is paid: %v", err)
		}
	}
	if _, err := c.Pay(t.Context(), "order-1", order); !errors.Is(err, payments.ErrDeclined) {
		t.Errorf("paid with a key that was cancelled: %v", err)
	}
	paid, err := c.Pay(t.Context(), "order/2", order)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Cancel(t.Context(), "order/2"); err != nil || got != paid {
		t.Errorf("got %+v, %v, want %+v", got, err, paid)
	}
	refunded, err := c.Refund(t.Context(), "refund-2", paid.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Cancel(t.Context(), "order/2"); err != nil || got != refunded {
		t.Errorf("got %+v, %v, want %+v", got, err, refunded)
	}
	if got := s.Payments(); !maps.Equal(got, map[payments.State]int{payments.Refunded: 1}) {
		t.Errorf("payments are %v", got)
	}
}

// Whether the request gets lost or the answer: one payment.
func TestPaidOnce(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]bool{"request lost": false, "answer lost": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var failures atomic.Int32
			s := paymentstest.Server{Fail: func(_ http.ResponseWriter, _ *http.Request, done bool) bool {
				if done == lost && failures.Add(1) <= 2 {
					panic(http.ErrAbortHandler) // the connection is cut
				}
				return false
			}}
			c := newClient(t, &s)
			first, err := c.Pay(t.Context(), "order-1", order)
			if err != nil {
				t.Fatal(err)
			}
			again, err := c.Pay(t.Context(), "order-1", order)
			if err != nil || again != first {
				t.Errorf("again: %+v, %v, want %+v", again, err, first)
			}
			if got := s.Payments(); !maps.Equal(got, map[payments.State]int{payments.Paid: 1}) {
				t.Errorf("payments are %v, want one", got)
			}
			if n := failures.Load(); n < 3 {
				t.Errorf("%d calls could fail, want two failures and a success", n)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	var s paymentstest.Server
	c := newClient(t, &s)
	if _, err := c.Status(t.Context(), "pay-9"); !errors.Is(err, payments.ErrNotFound) || !errors.Is(err, httpclient.ErrRefused) {
		t.Errorf("status of a payment that is not there: %v", err)
	}
	if _, err := c.Refund(t.Context(), "k", "pay-9"); !errors.Is(err, payments.ErrNotFound) {
		t.Errorf("refund of a payment that is not there: %v", err)
	}
	_, err := c.Pay(t.Context(), "order-1", payments.Order{Amount: "-1"})
	var declined *payments.DeclinedError
	if !errors.As(err, &declined) || declined.Reason != "invalid_amount" || !errors.Is(err, payments.ErrDeclined) || !errors.Is(err, httpclient.ErrRefused) {
		t.Errorf("declined: %v", err)
	}
	if _, err := c.Pay(t.Context(), "order-2", order); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Pay(t.Context(), "order-2", payments.Order{Amount: "5"}); !errors.Is(err, httpclient.ErrRefused) || errors.Is(err, payments.ErrDeclined) {
		t.Errorf("another order with the same key: %v", err)
	}
	if got := s.Payments(); !maps.Equal(got, map[payments.State]int{payments.Paid: 1}) {
		t.Errorf("payments are %v, want one", got)
	}
}

func TestWhatIsNoCall(t *testing.T) {
	t.Parallel()
	s := paymentstest.Server{Fail: func(http.ResponseWriter, *http.Request, bool) bool { t.Error("it was called"); return false }}
	c := newClient(t, &s)
	if _, err := c.Pay(t.Context(), "", order); err == nil {
		t.Error("Pay without a key")
	}
	if _, err := c.Refund(t.Context(), "", "pay-1"); err == nil {
		t.Error("Refund without a key")
	}
	for _, id := range []string{"", ".", ".."} {
		if _, err := c.Status(t.Context(), id); err == nil {
			t.Errorf("Status of %q", id)
		}
		if _, err := c.Cancel(t.Context(), id); err == nil {
			t.Errorf("Cancel of %q", id)
		}
	}
}

func TestUnavailable(t *testing.T) {
	t.Parallel()
	s := paymentstest.Server{Fail: func(w http.ResponseWriter, _ *http.Request, _ bool) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}}
	_, err := newClient(t, &s).Pay(t.Context(), "order-1", order)
	var e *httpclient.Error
	if !errors.As(err, &e) || !errors.Is(err, httpclient.ErrUnavailable) || e.Tries != 4 {
		t.Errorf("error is %v", err)
	}
}
