// Package paymentstest is a payment service in memory, for tests and demonstrations.
package paymentstest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/gotidings/tidings/examples/documents/internal/payments"
)

// Server is a payment service: an [http.Handler]. Its zero value is ready. It declines
// amounts that begin with a minus or are zero.
type Server struct {
	// Fail, if set before the first request, may answer instead of the service, and then
	// returns true. With done, the service has already done what was asked: the answer is
	// what gets lost. Without, it has not, and will not.
	Fail func(w http.ResponseWriter, r *http.Request, done bool) bool

	mu       sync.Mutex // guards what follows
	payments map[string]*payments.Payment
	answers  map[string]stored // by idempotency key
}

// stored is the answer to the first call with a key.
type stored struct {
	request string // what was asked, since a key is not to be used for anything else
	status  int
	body    any
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.Fail != nil && s.Fail(w, r, false) {
		return
	}
	status, body := s.answer(r)
	if s.Fail != nil && s.Fail(w, r, true) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // to a client that has gone
}

// Payments returns how many payments are in each state.
func (s *Server) Payments() map[payments.State]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := make(map[payments.State]int)
	for _, p := range s.payments {
		count[p.State]++
	}
	return count
}

func (s *Server) answer(r *http.Request) (status int, body any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.payments == nil {
		s.payments, s.answers = make(map[string]*payments.Payment), make(map[string]stored)
	}
	var order payments.Order
	if r.ContentLength > 0 {
		if err := json.NewDecoder(r.Body).Decode(&order); err != nil {
			return http.StatusBadRequest, reason("no JSON")
		}
	}
	if r.Method == http.MethodGet {
		id, _ := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/api/payments/"), "/status")
		if p, ok := s.payments[id]; ok {
			return http.StatusOK, *p
		}
		return http.StatusNotFound, reason("not_found")
	}
	if r.Method == http.MethodDelete {
		return s.cancel(strings.TrimPrefix(r.URL.Path, "/api/payments/keys/"))
	}
	key := r.Header.Get("Idempotency-Key")
	if key == "" {
		return http.StatusBadRequest, reason("no idempotency key")
	}
	request := fmt.Sprint(r.Method, r.URL.Path, order)
	if first, ok := s.answers[key]; ok {
		if first.request != request && first.request != cancelled {
			return http.StatusUnprocessableEntity, reason("another request with the same idempotency key")
		}
		return first.status, first.body
	}
	status, body = s.change(r, order)
	s.answers[key] = stored{request, status, body}
	return status, body
}

// cancelled is the request of a key with which nothing is done any more.
const cancelled = ""

// cancel lets nobody pay with a key, and returns the payment that was made with it.
func (s *Server) cancel(key string) (status int, body any) {
	first, ok := s.answers[key]
	if !ok {
		s.answers[key] = stored{cancelled, http.StatusPaymentRequired, reason("cancelled")}
	}
	if p, ok := first.body.(payments.Payment); ok {
		return http.StatusOK, *s.payments[p.ID]
	}
	return http.StatusNotFound, reason("not_found")
}

// change does what is to be done once for each key.
func (s *Server) change(r *http.Request, order payments.Order) (status int, body any) {
	if r.URL.Path == "/api/payments" {
		if strings.HasPrefix(order.Amount, "-") || strings.Trim(order.Amount, "0.") == "" {
			return http.StatusPaymentRequired, reason("invalid_amount")
		}
		p := &payments.Payment{ID: fmt.Sprintf("pay-%d", len(s.payments)+1), State: payments.Paid, Order: order}
		s.payments[p.ID] = p
		return http.StatusCreated, *p
	}
	id, _ := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/api/payments/"), "/refund")
	p, ok := s.payments[id]
	if !ok {
		return http.StatusNotFound, reason("not_found")
	}
	p.State = payments.Refunded
	return http.StatusOK, *p
}

func reason(text string) any { return map[string]string{"reason": text} }
