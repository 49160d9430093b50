package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/examples/documents/internal/document"
	"github.com/gotidings/tidings/examples/documents/internal/monitor"
	"github.com/gotidings/tidings/examples/documents/internal/payments"
	"github.com/gotidings/tidings/examples/documents/internal/queue"
)

const letter = "Dear Ada. All is well."

// dependency returns what the page shows of a dependency.
func (s *system) dependency(name string) monitor.Result {
	s.t.Helper()
	_, body := s.request(http.MethodGet, "/dependencies", adasToken, nil)
	var answer struct{ Dependencies []monitor.Result }
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		s.t.Fatalf("%v in %s", err, body)
	}
	i := slices.IndexFunc(answer.Dependencies, func(r monitor.Result) bool { return r.Name == name })
	if i < 0 {
		s.t.Fatalf("the page does not show %s: %s", name, body)
	}
	return answer.Dependencies[i]
}

// Without the analysis service its circuit opens, documents have the results of the
// fallbacks, and everybody can see it. When the service is back the circuit closes.
func TestAnalysisDown(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t, "-monitor-interval", "20ms"))
	ada := s.connect(adasToken, "ada")
	s.services.analysisFaults.Down(true)
	for range 3 {
		d := ada.final(ada.submit(t.Context(), "a.txt", letter))
		if r := d.Results; d.Status != document.Processed || !slices.Equal(r.Degraded, document.Steps[:3]) ||
			r.Words != 5 || r.Category != "unknown" || r.Summary != letter || r.PaymentID == "" {
			t.Errorf("document is %+v", d)
		}
	}
	if state := s.worker.analysis.Breaker().State(); state == circuitbreaker.ClosedState {
		t.Error("the circuit is closed")
	}
	until(t, "the page shows that the service is down", func() bool { return s.dependency("analysis").Status == monitor.Down })
	if code, body := s.request(http.MethodGet, "/readyz", "", nil); code != http.StatusOK || !strings.Contains(body, `"warn"`) || !strings.Contains(body, "down since") {
		t.Errorf("readyz: %d %s", code, body)
	}

	s.services.analysisFaults.Down(false)
	until(t, "the service is used again", func() bool {
		return len(ada.final(ada.submit(t.Context(), "a.txt", letter)).Results.Degraded) == 0
	})
	if state := s.worker.analysis.Breaker().State(); state != circuitbreaker.ClosedState {
		t.Errorf("the circuit is %v", state)
	}
	until(t, "the page shows that the service is up", func() bool { return s.dependency("analysis").Status == monitor.Up })
}

// A service that takes too long is as good as none.
func TestAnalysisSlow(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t, "-try-timeout", "30ms"))
	ada := s.connect(adasToken, "ada")
	s.services.analysisFaults.Slow(time.Hour)
	d := ada.final(ada.submit(t.Context(), "a.txt", letter))
	if d.Status != document.Processed || !slices.Equal(d.Results.Degraded, document.Steps[:3]) {
		t.Errorf("document is %+v", d)
	}
}

// There is no fallback for money: the document waits, and says where, and is paid once.
func TestPaymentsDown(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t, "-retry-delay", "20ms", "-breaker-delay", "2s"))
	ada := s.connect(adasToken, "ada")
	s.services.paymentFaults.Down(true)
	id := ada.submit(t.Context(), "a.txt", letter)
	until(t, "an open circuit", func() bool { return s.worker.payments.Breaker().State() == circuitbreaker.OpenState })
	d, err := ada.rest.Get(t.Context(), id)
	if err != nil || d.Status != document.Processing || d.Step != document.Charge || d.Progress != 75 {
		t.Errorf("document is %+v, %v", d, err)
	}
	s.services.paymentFaults.Down(false)
	if d := ada.final(id); d.Status != document.Processed || d.Results.PaymentID == "" {
		t.Errorf("document is %+v", d)
	}
	if n := s.services.payments.Payments()[payments.Paid]; n != 1 {
		t.Errorf("it was paid %d times", n)
	}
}

// After three deliveries the document has failed, and its message is put aside with the
// reason.
func TestPaymentsDownForGood(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	ada := s.connect(adasToken, "ada")
	s.services.paymentFaults.Down(true)
	id := ada.submit(t.Context(), "a.txt", letter)
	d := ada.final(id)
	if d.Status != document.Failed || !strings.HasPrefix(d.Error, "it could not be processed: charge: payments: ") {
		t.Errorf("document is %+v", d)
	}
	if n := s.services.payments.Payments()[payments.Paid]; n != 0 {
		t.Errorf("it was paid %d times", n)
	}
	dead := s.deadLetters(1)
	if dead[0].Reason != queue.ReasonMaxDeliveries || dead[0].Deliveries != 3 || dead[0].Message.UUID == "" {
		t.Errorf("dead letter: %+v", dead[0])
	}
}

// A charge that got no answer but was made is given back when the document has failed, even if
// that takes some calls; and one that comes later is not made.
func TestRefund(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		made     bool // before the answer gets lost
		refunded int
	}{"made": {true, 1}, "late": {false, 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openSystem(t, newConfig(t, "-try-timeout", "100ms"))
			over := make(chan struct{}) // the waiting of charges
			var charges, charged, cancels, refunds atomic.Int32
			var cancelled atomic.Bool
			s.services.payments.Fail = func(w http.ResponseWriter, r *http.Request, done bool) bool {
				if r.URL.Path != "/api/payments" {
					calls := &refunds
					if r.Method == http.MethodDelete {
						calls = &cancels
					}
					if done {
						cancelled.CompareAndSwap(false, calls == &cancels)
						return false
					}
					fails := calls.Add(1) <= 7 // more than the tries of a call
					if fails {
						w.WriteHeader(http.StatusServiceUnavailable)
					}
					return fails
				}
				if !done {
					charges.Add(1)
				}
				if done == test.made {
					<-over
				}
				if done {
					charged.Add(1)
				}
				return false
			}
			s.begin()
			ada := s.connect(adasToken, "ada")
			d := ada.final(ada.submit(t.Context(), "a.txt", letter))
			if d.Status != document.Failed || !strings.Contains(d.Error, "charge: payments: ") {
				t.Errorf("document is %+v", d)
			}
			until(t, "a key that is cancelled", cancelled.Load)
			close(over)
			until(t, "the end of all charges", func() bool { return charged.Load() == charges.Load() })
			until(t, "a refund", func() bool { return s.services.payments.Payments()[payments.Refunded] == test.refunded })
			if all := s.services.payments.Payments(); all[payments.Paid] != 0 {
				t.Errorf("payments are %v", all)
			}
		})
	}
}

// A delivery that finds the circuit open, or somebody else at trying whether it can be closed,
// does not count: the document waits for as long as it takes.
func TestCircuitOpen(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(circuitbreaker.CircuitBreaker[any]){
		"open": func(b circuitbreaker.CircuitBreaker[any]) { b.Open() },
		"half open": func(b circuitbreaker.CircuitBreaker[any]) {
			b.HalfOpen()
			b.TryAcquirePermit()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spans := tracetest.NewInMemoryExporter()
			cfg := newConfig(t, "-breaker-delay", "1h")
			s := startTraced(t, cfg, sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)))
			ada := s.connect(adasToken, "ada")
			open(s.worker.payments.Breaker())
			id := ada.submit(t.Context(), "a.txt", letter)
			until(t, "more deliveries than there may be", func() bool {
				n := 0
				for _, span := range spans.GetSpans() {
					if span.Name == "process "+s.cfg.queueName() {
						n++
					}
				}
				return n > 5
			})
			s.worker.payments.Breaker().Close()
			if d := ada.final(id); d.Status != document.Processed {
				t.Errorf("document is %+v", d)
			}
		})
	}
}

// deadLetters waits for dead letters.
func (s *system) deadLetters(n int) (all []queue.DeadLettered) {
	s.t.Helper()
	until(s.t, "dead letters", func() bool {
		all = nil
		for d, err := range s.worker.queue.DeadLetters(s.t.Context()) {
			if err != nil {
				s.t.Fatal(err)
			}
			all = append(all, d)
		}
		return len(all) >= n
	})
	return all
}

// What is no request is put aside at once, and what is for another system is passed over.
func TestStrangeMessages(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	publish := func(source, data string) {
		t.Helper()
		raw := bus.Raw{Metadata: events.Metadata{Type: document.RequestedType, Source: source}, Data: []byte(data)}
		if err := s.bus.PublishRaw(t.Context(), raw); err != nil {
			t.Fatal(err)
		}
	}
	publish("", `{"documentId"`)
	publish("elsewhere", `{"documentId":"1"}`)
	publish("", `{"documentId":"2"}`)
	dead := s.deadLetters(2)
	slices.SortFunc(dead, func(a, b queue.DeadLettered) int { return strings.Compare(a.Reason, b.Reason) })
	if len(dead) != 2 || dead[0].Reason != queue.ReasonUndecodable || dead[0].Deliveries != 1 || dead[1].Reason != "unknown_document" {
		t.Errorf("dead letters: %+v", dead)
	}
	if list, err := s.store.List(t.Context(), query("")); err != nil || len(list) != 0 {
		t.Errorf("documents came into being: %v, %v", list, err)
	}
}
