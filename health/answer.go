package health

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// status is a status of the draft, the best first.
type status int

const (
	pass status = iota
	warn
	fail
)

func (s status) String() string { return [...]string{"pass", "warn", "fail"}[s] }

// MarshalText writes the status as the draft spells it.
func (s status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// answer is the body of a response.
type answer struct {
	Status status              `json:"status"`
	Checks map[string][]detail `json:"checks,omitempty"` // by component, which may have several nodes in the draft
}

type detail struct {
	Status        status   `json:"status"`
	Output        string   `json:"output,omitempty"`
	Time          string   `json:"time,omitempty"`          // with verbose
	ObservedValue *float64 `json:"observedValue,omitempty"` // with verbose: how long the check took
	ObservedUnit  string   `json:"observedUnit,omitempty"`
}

func newAnswer(probers []*prober, results []result, verbose bool) answer {
	a := answer{Checks: make(map[string][]detail, len(probers))}
	for i, r := range results {
		a.Status = max(a.Status, r.status)
		d := detail{Status: r.status, Output: r.output}
		name := probers[i].Name
		a.Checks[name] = []detail{d}
		if verbose {
			ms := float64(r.took.Microseconds()) / 1000
			a.Checks[name][0].Time = r.began.UTC().Format(time.RFC3339Nano)
			a.Checks[name+":responseTime"] = []detail{{
				Status: r.status, ObservedValue: &ms, ObservedUnit: "ms", Time: r.began.UTC().Format(time.RFC3339Nano),
			}}
		}
	}
	return a
}

// verbose says whether a request asks for more: ?verbose does, and ?verbose=false not.
func verbose(r *http.Request) bool {
	query := r.URL.Query()
	no, err := strconv.ParseBool(query.Get("verbose"))
	return query.Has("verbose") && (err != nil || no)
}

func write(w http.ResponseWriter, r *http.Request, a answer) {
	body, err := json.Marshal(a)
	if err != nil { // impossible: it is text and numbers
		http.Error(w, "the answer can't be written", http.StatusInternalServerError)
		return
	}
	body = append(body, '\n')
	header := w.Header()
	header.Set("Content-Type", "application/health+json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Cache-Control", "no-store") // results are kept here, and no proxy is to keep them longer
	header.Set("X-Content-Type-Options", "nosniff")
	code := http.StatusOK
	if a.Status == fail {
		code = http.StatusServiceUnavailable
	}
	w.WriteHeader(code)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // who asked has gone away
	}
}
