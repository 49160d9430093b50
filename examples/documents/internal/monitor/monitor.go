// Package monitor looks after what a service depends on, in the background: it asks each
// dependency once a minute, and remembers what it answered and since when. So the page and
// /readyz tell how things are at once, and a probe more often asked costs nothing.
//
//	m, err := monitor.New(monitor.Config{Checks: []monitor.Check{
//		{Name: "database", Func: db.PingContext},
//		monitor.HTTP("analysis", client, "http://analysis.internal/healthz"),
//	}})
//	go m.Run(ctx)
//	probes, err := health.New(health.Config{Checks: m.Checks()})
//
// What is told to anybody is up or down, since when, and whether it was late. Errors quote
// addresses and users, so only the log has them.
package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/gotidings/tidings/health"
)

// Check asks a dependency.
type Check struct {
	Name string // letters, digits, - and _

	// Func returns nil when the dependency can be used. It must return when ctx ends.
	Func func(ctx context.Context) error

	// Timeout bounds Func. 0 means Config.Timeout.
	Timeout time.Duration

	// Optional says that the service can do without: /readyz warns instead of failing.
	Optional bool
}

// HTTP returns a check that gets a URL, and passes when the answer is 2xx.
func HTTP(name string, client *http.Client, url string) Check {
	return Check{Name: name, Func: func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		_, _ = io.CopyN(io.Discard, res.Body, 4<<10) // so that the connection can be used again
		_ = res.Body.Close()                         // nothing else is read
		if res.StatusCode < 200 || res.StatusCode > 299 {
			return errors.New(res.Status)
		}
		return nil
	}}
}

// Config configures a [Monitor].
type Config struct {
	Checks []Check // their names differ

	// Interval is how often each is made. 0 means 1 min.
	Interval time.Duration

	// Timeout bounds a check that has none of its own. 0 means 5 s.
	Timeout time.Duration

	// OnChange, if set, is called when a dependency has come up or gone down, for one
	// dependency at a time, for several concurrently. It should not block.
	OnChange func(Result)

	// Logger says when a dependency comes up or goes down, and why. nil means to discard.
	Logger *slog.Logger
}

// Status is how a dependency is.
type Status string

// The statuses.
const (
	Unknown Status = "unknown" // before the first check
	Up      Status = "up"
	Down    Status = "down"
)

// Result is what is known of a dependency.
type Result struct {
	Name      string    `json:"name"`
	Status    Status    `json:"status"`
	Since     time.Time `json:"since"`              // of Status
	CheckedAt time.Time `json:"checked,omitzero"`   // end of the last check
	TookMs    int64     `json:"tookMs"`             // of the last check, milliseconds
	Problem   string    `json:"error,omitempty"`    // for anybody to see: "failed", "no answer within 5s"
	Optional  bool      `json:"optional,omitempty"` // see Check
	Failures  int       `json:"failures,omitempty"` // in a row
}

// Monitor makes checks. Its methods may be called concurrently.
type Monitor struct {
	cfg Config

	mu      sync.Mutex // guards results
	results []Result   // in the order of Config.Checks
}

// New makes a monitor. The error joins all faults of cfg.
func New(cfg Config) (*Monitor, error) {
	if cfg.Interval == 0 {
		cfg.Interval = time.Minute
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.OnChange == nil {
		cfg.OnChange = func(Result) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Monitor{cfg: cfg}
	var faults []error
	names := make(map[string]bool)
	for i, c := range cfg.Checks {
		if c.Name == "" || names[c.Name] || c.Func == nil || c.Timeout < 0 {
			faults = append(faults, fmt.Errorf("monitor: Checks[%d], %q, has no name of its own, no Func or a negative Timeout", i, c.Name))
		}
		names[c.Name] = true
		m.results = append(m.results, Result{Name: c.Name, Status: Unknown, Since: time.Now(), Optional: c.Optional})
	}
	if cfg.Interval < 0 || cfg.Timeout < 0 {
		faults = append(faults, fmt.Errorf("monitor: Interval is %v and Timeout is %v; they must not be negative", cfg.Interval, cfg.Timeout))
	}
	return m, errors.Join(faults...)
}

// Run makes checks, at once and then in each interval, until ctx ends. Each dependency has a
// goroutine of its own, so that one that hangs delays no other.
func (m *Monitor) Run(ctx context.Context) {
	var all sync.WaitGroup
	for i := range m.cfg.Checks {
		all.Go(func() { m.watch(ctx, i) })
	}
	all.Wait()
}

func (m *Monitor) watch(ctx context.Context, i int) {
	ticker := time.NewTicker(m.cfg.Interval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		m.check(ctx, i)
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// check makes a check. Its result is noted when it is late, even if it never returns.
func (m *Monitor) check(ctx context.Context, i int) {
	c := m.cfg.Checks[i]
	limit := c.Timeout
	if limit == 0 {
		limit = m.cfg.Timeout
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var returned sync.WaitGroup
	defer returned.Wait() // no second call beside the first
	done := make(chan error, 1)
	returned.Go(func() { done <- call(limited, c.Func) })
	var err error
	select {
	case err = <-done:
	case <-limited.Done():
		err = limited.Err()
	}
	if ctx.Err() != nil {
		return // it was interrupted, and says nothing
	}
	problem := ""
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		problem = fmt.Sprintf("no answer within %v", limit)
	case err != nil:
		problem = "failed"
	}
	m.note(ctx, i, problem, err, time.Since(began))
}

// call calls f, and makes an error of a panic: a check must not end the process.
func call(ctx context.Context, f func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return f(ctx)
}

func (m *Monitor) note(ctx context.Context, i int, problem string, err error, took time.Duration) {
	m.mu.Lock()
	r := &m.results[i]
	before := r.Status
	r.CheckedAt, r.TookMs, r.Problem = time.Now(), took.Milliseconds(), problem
	if err == nil {
		r.Status, r.Failures = Up, 0
	} else {
		r.Status, r.Failures = Down, r.Failures+1
	}
	changed := r.Status != before
	if changed {
		r.Since = r.CheckedAt
	}
	now := *r
	m.mu.Unlock()
	if !changed {
		return
	}
	if err != nil {
		m.cfg.Logger.WarnContext(ctx, "dependency is down", slog.String("dependency", now.Name), slog.Any("error", err))
	} else {
		m.cfg.Logger.InfoContext(ctx, "dependency is up", slog.String("dependency", now.Name))
	}
	m.cfg.OnChange(now)
}

// Snapshot returns what is known of each dependency, in the order of Config.Checks. It asks
// nobody.
func (m *Monitor) Snapshot() []Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Result{}, m.results...)
}

// Checks returns the checks for [health.Config], which tell what is known and ask nobody.
func (m *Monitor) Checks() []health.Check {
	checks := make([]health.Check, len(m.cfg.Checks))
	for i, c := range m.cfg.Checks {
		checks[i] = health.Check{Name: c.Name, Func: func(context.Context) error { return m.Snapshot()[i].health() }}
	}
	return checks
}

func (r Result) health() error {
	answer := health.Fail
	if r.Optional {
		answer = health.Warn
	}
	switch r.Status {
	case Up:
		return nil
	case Unknown:
		return answer("not checked yet", nil)
	default:
		return answer(fmt.Sprintf("down since %s: %s", r.Since.UTC().Format(time.RFC3339), r.Problem), nil)
	}
}
