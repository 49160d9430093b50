package discovery_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gotidings/tidings/examples/documents/internal/discovery"
	"github.com/gotidings/tidings/examples/documents/internal/httpauth"
	"github.com/gotidings/tidings/examples/documents/internal/httpclient"
)

// A typed client over a balancer: what an instance that is away has refused, a retry gets from
// another one. The signature is of the service's name, so each instance takes it.
func TestClientOfSeveralInstances(t *testing.T) {
	t.Parallel()
	key := bytes.Repeat([]byte("k"), 32)
	serve := func() *httptest.Server {
		verifier, err := httpauth.NewVerifier(httpauth.VerifierConfig{Keys: map[string][]byte{"shop": key}})
		if err != nil {
			t.Fatal(err)
		}
		return httptest.NewServer(verifier.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(`"` + r.Host + `"`))
		})))
	}
	here, away := serve(), serve()
	defer here.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	balancer, err := discovery.Open(t.Context(), discovery.Config{
		Resolver: discovery.Static(here.Listener.Addr().String(), away.Listener.Addr().String()), Transport: transport,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer balancer.Close() //nolint:errcheck // there is none
	sign, tries := httpauth.HMAC("shop", key), 0
	client, err := httpclient.New(httpclient.Config{
		Name: "ocr", BaseURL: "http://ocr.internal", Transport: balancer, RetryDelay: time.Millisecond,
		Auth: func(req *http.Request) error {
			tries++
			return sign(req)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	away.Close()
	for range 10 {
		host, err := httpclient.Do(t.Context(), client, httpclient.Request[string]{Method: http.MethodGet, Path: "/"})
		if err != nil || host != "ocr.internal" {
			t.Errorf("got %q, %v", host, err)
		}
	}
	if tries != 11 {
		t.Errorf("%d tries, want one more than calls: then the instance is passed over", tries)
	}
}
