package health

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Defaults of [Config].
const (
	DefaultTimeout = 2 * time.Second
	DefaultMaxAge  = time.Second
)

// Config configures a handler. The zero value is a service without checks, which is
// always ready.
type Config struct {
	// Checks are what readiness depends on. Their names differ.
	Checks []Check

	// Timeout bounds a check that has no timeout of its own. 0 means DefaultTimeout. It
	// should be less than the timeout of the probe: a check that is late says which.
	Timeout time.Duration

	// MaxAge is how long the result of a check is used again. 0 means DefaultMaxAge, and
	// less than 0 not at all; callers that come while a check runs share its result in
	// any case.
	MaxAge time.Duration

	// Logger gets the errors of checks; nil means none.
	Logger *slog.Logger
}

// New returns the handler of /livez, /readyz and /readyz/<check>. It can be mounted below
// another path with [http.StripPrefix]. The error joins all faults of cfg.
func New(cfg Config) (http.Handler, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = DefaultMaxAge
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("health: %w", err)
	}
	h := &handler{byName: make(map[string]*prober, len(cfg.Checks))}
	for _, c := range cfg.Checks {
		if c.Timeout == 0 {
			c.Timeout = cfg.Timeout
		}
		p := &prober{Check: c, maxAge: cfg.MaxAge, log: cfg.Logger.With(slog.String("check", c.Name))}
		h.probers = append(h.probers, p)
		h.byName[c.Name] = p
	}
	mux := http.NewServeMux() // a pattern of GET matches HEAD too, and makes 405 of the rest
	mux.HandleFunc("GET /livez", h.live)
	mux.HandleFunc("GET /readyz", h.ready)
	mux.HandleFunc("GET /readyz/{check}", h.readyOne)
	return mux, nil
}

func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Timeout < 0 {
		fault("Timeout is %v; it must not be negative", c.Timeout)
	}
	seen := make(map[string]bool)
	for i, check := range c.Checks {
		switch {
		case !nameable(check.Name):
			fault("Checks[%d].Name is %q; it takes letters, digits, - and _", i, check.Name)
		case seen[check.Name]:
			fault("Checks[%d].Name is %q, as that of another check; each needs one of its own", i, check.Name)
		}
		seen[check.Name] = true
		if check.Func == nil {
			fault("Checks[%d].Func is nil", i)
		}
		if check.Timeout < 0 {
			fault("Checks[%d].Timeout is %v; it must not be negative", i, check.Timeout)
		}
	}
	return errors.Join(faults...)
}

// nameable says whether a check can have a name: it becomes a part of a path, and of a
// key in which a colon would have a meaning.
func nameable(name string) bool {
	return name != "" && strings.IndexFunc(name, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		return !letter && (r < '0' || r > '9') && r != '-' && r != '_'
	}) < 0
}

type handler struct {
	probers []*prober // in the order of Config.Checks
	byName  map[string]*prober
}

func (h *handler) live(w http.ResponseWriter, r *http.Request) {
	write(w, r, answer{Status: pass})
}

func (h *handler) ready(w http.ResponseWriter, r *http.Request) { answerFor(w, r, h.probers) }

func (h *handler) readyOne(w http.ResponseWriter, r *http.Request) {
	p, ok := h.byName[r.PathValue("check")]
	if !ok {
		http.Error(w, "there is no such check", http.StatusNotFound)
		return
	}
	answerFor(w, r, []*prober{p})
}

// answerFor runs checks, all at once, and answers with their results.
func answerFor(w http.ResponseWriter, r *http.Request, probers []*prober) {
	results := make([]result, len(probers))
	var all sync.WaitGroup
	for i, p := range probers {
		all.Go(func() { results[i] = p.result(r.Context()) })
	}
	all.Wait()
	write(w, r, newAnswer(probers, results, verbose(r)))
}
