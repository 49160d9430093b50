package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/gotidings/tidings/examples/documents/internal/analysis"
	"github.com/gotidings/tidings/examples/documents/internal/document"
	"github.com/gotidings/tidings/examples/documents/internal/httpauth"
	"github.com/gotidings/tidings/examples/documents/internal/payments/paymentstest"
)

// keyID names the key of workers in their signatures.
const keyID = "worker"

// servicesRole are the services that the worker calls: stand-ins for what others run, each
// with faults of its own. In a process of all roles there are two instances, between which
// the worker's clients balance.
type servicesRole struct {
	payments                      paymentstest.Server
	analysisFaults, paymentFaults analysis.Faults
	instances                     []*server
}

func openServices(ctx context.Context, cfg config, log *slog.Logger) (*servicesRole, error) {
	r := &servicesRole{}
	for _, f := range []*analysis.Faults{&r.analysisFaults, &r.paymentFaults} {
		f.Fail(cfg.faults)
		f.Slow(cfg.delay)
	}
	verifier, err := httpauth.NewVerifier(httpauth.VerifierConfig{Keys: map[string][]byte{keyID: []byte(cfg.key)}, MaxBody: document.MaxJSON, Logger: log})
	if err != nil {
		return r, err
	}
	mux := http.NewServeMux()
	for path, service := range map[string]struct {
		handler http.Handler
		faults  *analysis.Faults
	}{
		"/analysis": {analysis.Handler(), &r.analysisFaults},
		"/payments": {&r.payments, &r.paymentFaults},
	} {
		// The signature is over the whole path, so it is checked before that is shortened.
		mux.Handle(path+"/", service.faults.Wrap(verifier.Require(http.StripPrefix(path, service.handler))))
		mux.Handle("GET "+path+"/healthz", service.faults.Wrap(http.HandlerFunc(healthy)))
	}
	for _, path := range []string{"/livez", "/readyz"} {
		mux.HandleFunc("GET "+path, healthy)
	}
	addresses := []string{cfg.servicesAddr}
	if cfg.whole() {
		addresses = []string{"127.0.0.1:0", "127.0.0.1:0"}
	}
	for _, address := range addresses {
		s, err := listen(ctx, address, mux, log)
		if err != nil {
			return r, err
		}
		r.instances = append(r.instances, s)
	}
	return r, nil
}

// healthy answers probes, for which no signature is needed.
func healthy(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

func (r *servicesRole) addresses() (all []string) {
	for _, i := range r.instances {
		all = append(all, i.listener.Addr().String())
	}
	return all
}

func (r *servicesRole) start(s *service) {
	for _, i := range r.instances {
		s.goes(i.serve)
	}
}

func (r *servicesRole) stop(ctx context.Context) error {
	var errs []error
	for _, i := range r.instances {
		errs = append(errs, i.stop(ctx))
	}
	return errors.Join(errs...)
}

// Close lets go of the addresses, if it was never started.
func (r *servicesRole) Close() error {
	for _, i := range r.instances {
		_ = i.listener.Close() // it was closed by the server, or is not needed
	}
	return nil
}
