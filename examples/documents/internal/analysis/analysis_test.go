package analysis_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/gotidings/tidings/examples/documents/internal/analysis"
	"github.com/gotidings/tidings/examples/documents/internal/document"
	"github.com/gotidings/tidings/examples/documents/internal/httpclient"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A summary is short, whoever has made it.
func TestSummary(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 100_000)
	for name, service := range map[string]http.Handler{
		"ours":     analysis.Handler(),
		"another":  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"summary":%q}`, long) }),
		"fallback": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(service)
			defer server.Close()
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			c, err := httpclient.New(httpclient.Config{Name: "analysis", BaseURL: server.URL, Transport: transport, MaxRetries: -1})
			if err != nil {
				t.Fatal(err)
			}
			d := document.Document{ID: "1", Results: document.Results{Text: long}}
			if err := analysis.NewClient(c).Summarise(t.Context(), &d); err != nil {
				t.Fatal(err)
			}
			if n := utf8.RuneCountInString(d.Results.Summary); n != 201 || !strings.HasSuffix(d.Results.Summary, "ä…") {
				t.Errorf("it has %d characters: %.20s", n, d.Results.Summary)
			}
		})
	}
	answer := httptest.NewRecorder()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/summarise", strings.NewReader(`{"text":"`+long+`"}`))
	analysis.Handler().ServeHTTP(answer, request)
	if n := answer.Body.Len(); n > 1000 {
		t.Errorf("the answer has %d bytes", n)
	}
}
