package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/gotidings/tidings/events"
)

// What begins in the browser is one trace up to the live update, through HTTP, the outbox,
// the broker, the queue, the calls of services and the events.
func TestOneTrace(t *testing.T) {
	t.Parallel()
	for name, args := range map[string]func(*testing.T) []string{
		"memory":  func(*testing.T) []string { return nil },
		"servers": onServers,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			recorder := tracetest.NewSpanRecorder()
			s := startTraced(t, newConfig(t, args(t)...), sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)))
			ada := s.connect(adasToken, "ada")

			const traceID, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331" // as page.js makes them
			id := events.NewID()
			body, err := json.Marshal(map[string]string{"id": id, "name": "a.txt", "content": "Dear Ada."})
			if err != nil {
				t.Fatal(err)
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.server.url()+"/documents", strings.NewReader(string(body)))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+adasToken)
			req.Header.Set("Traceparent", "00-"+traceID+"-"+parent+"-01")
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusAccepted {
				t.Fatalf("%s, %v", resp.Status, err)
			}
			if err := ada.live.Join(t.Context(), "document_"+id); err != nil {
				t.Fatal(err)
			}
			ada.final(id)

			want := []string{
				"server POST /documents",
				"producer create document.requested",
				"consumer process " + s.cfg.queueName(),
				"client POST /analysis/extract", "client POST /analysis/classify", "client POST /analysis/summarise", "client POST /payments/api/payments",
				"producer create document.progressed", "producer create document.processed",
				"consumer process document.progressed realtime", "consumer process document.processed realtime",
				"consumer process document.processed notify", "consumer process document.processed statistics",
			}
			var names []string
			until(t, "all spans of the trace", func() bool { // they are recorded when they end
				names = nil
				for _, span := range recorder.Ended() {
					if span.SpanContext().TraceID().String() == traceID {
						names = append(names, spanName(span))
					}
				}
				return !slices.ContainsFunc(want, func(name string) bool { return !slices.Contains(names, name) })
			})
			s.end(true)
			spans := map[string]string{parent: "the browser"}
			for _, span := range recorder.Ended() {
				spans[span.SpanContext().SpanID().String()] = span.Name()
			}
			for _, span := range recorder.Ended() {
				if span.SpanContext().TraceID().String() == traceID && spans[span.Parent().SpanID().String()] == "" {
					t.Errorf("the parent of %s is not in the trace", span.Name())
				}
			}
		})
	}
}

// spanName is a span's kind and name, and the path or the subscription.
func spanName(span sdktrace.ReadOnlySpan) string {
	name := span.SpanKind().String() + " " + span.Name()
	for _, a := range span.Attributes() {
		switch {
		case a.Key == "url.path" && span.SpanKind() == trace.SpanKindClient:
			name += " " + a.Value.AsString()
		case a.Key == "messaging.destination.subscription.name":
			_, subscription, _ := strings.Cut(a.Value.AsString(), ".")
			name += " " + subscription
		}
	}
	return name
}

// The program writes its spans to a file, all of them.
func TestTraces(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := filepath.Join(folder, "spans.json")
	if err := os.WriteFile(filepath.Join(folder, "a.txt"), []byte(letter), 0o600); err != nil {
		t.Fatal(err)
	}
	once(t, "-name", "traced", "-input", folder, "-faults", "0", "-traces", file)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	traces := make(map[string][]string) // names of spans
	for line := range strings.Lines(string(data)) {
		var span struct {
			Name        string
			SpanContext struct{ TraceID string }
			Resource    []struct{ Value struct{ Value string } }
		}
		if err := json.Unmarshal([]byte(line), &span); err != nil || len(span.Resource) != 1 || span.Resource[0].Value.Value != "traced" {
			t.Fatalf("%v in %s", err, line)
		}
		traces[span.SpanContext.TraceID] = append(traces[span.SpanContext.TraceID], span.Name)
	}
	const first, last = "POST /documents", "create document.processed"
	if !slices.ContainsFunc(slices.Collect(maps.Values(traces)), func(names []string) bool {
		return slices.Contains(names, first) && slices.Contains(names, last)
	}) {
		t.Errorf("no trace has %q and %q: %q", first, last, traces)
	}
}
