// Package api is the REST API of the example.
//
//	POST /documents                {"name", "content", "id"}: 202, and its place in Location;
//	                               with a UUID as id, it may be sent again
//	GET  /documents                the newest first; ?status= ?before=<id of one> ?limit=
//	GET  /documents/{id}
//	GET  /documents/{id}/events    what has happened to it, from the event store
//	GET  /statistics               how many documents of each category were processed
//	GET  /dependencies             what the service needs, and since when it is there or not
//	GET  /me                       whose token it is
//
// Faults of a request are answered 400, and 413 when it is too large, each with a text in
// "errors". Each takes a bearer token. Somebody else's document is answered as one that does not
// exist.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/gotidings/tidings/eventstore"
	"github.com/gotidings/tidings/examples/documents/internal/document"
	"github.com/gotidings/tidings/examples/documents/internal/httpauth"
	"github.com/gotidings/tidings/examples/documents/internal/monitor"
	"github.com/gotidings/tidings/examples/documents/internal/tracing"
)

// Config is what the API is made of. All fields are required.
type Config struct {
	Store        *document.Store
	History      *eventstore.Store
	Tokens       *httpauth.Tokens
	Statistics   func(ctx context.Context, owner string) (map[string]int, error)
	Dependencies func() []monitor.Result
	Tracer       trace.TracerProvider
	Logger       *slog.Logger
}

type api struct{ Config }

// New returns the API.
func New(cfg Config) http.Handler {
	a := &api{cfg}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /documents", a.post)
	mux.HandleFunc("GET /documents", a.list)
	mux.HandleFunc("GET /documents/{id}", a.get)
	mux.HandleFunc("GET /documents/{id}/events", a.events)
	mux.HandleFunc("GET /statistics", a.statistics)
	mux.HandleFunc("GET /dependencies", func(w http.ResponseWriter, _ *http.Request) {
		respond(w, http.StatusOK, map[string]any{"dependencies": a.Dependencies()})
	})
	mux.HandleFunc("GET /me", func(w http.ResponseWriter, r *http.Request) {
		respond(w, http.StatusOK, map[string]string{"user": httpauth.Caller(r.Context())})
	})
	return tracing.Server(cfg.Tracer, mux, httpauth.RequireBearer(cfg.Tokens, mux))
}

// View is a document as the API shows it.
type View struct {
	document.Document
	RemainingMs int64 `json:"remainingMs,omitempty"` // estimated, milliseconds
}

func view(d document.Document) View { return View{d, d.Remaining.Milliseconds()} }

func (a *api) post(w http.ResponseWriter, r *http.Request) {
	var body struct {
		ID      string `json:"id"`
		Name    string `json:"name"`
		Content string `json:"content"`
	}
	var d document.Document
	err := read(http.MaxBytesReader(w, r.Body, document.MaxJSON), &body)
	if err == nil {
		d, err = document.New(body.ID, httpauth.Caller(r.Context()), body.Name, body.Content, time.Now())
	}
	if err != nil {
		code := http.StatusBadRequest
		if errors.Is(err, document.ErrTooLarge) {
			code = http.StatusRequestEntityTooLarge
		}
		fail(w, code, strings.Split(err.Error(), "\n")...)
		return
	}
	if d, err = a.Store.Add(r.Context(), d); err != nil {
		a.refuse(w, r, err)
		return
	}
	w.Header().Set("Location", "/documents/"+d.ID)
	respond(w, http.StatusAccepted, view(d))
}

// read reads the body of a request, which is one value of JSON. The error is for who has sent
// it.
func read(body io.Reader, v any) error {
	data, err := io.ReadAll(body)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	var (
		tooLarge *http.MaxBytesError
		syntax   *json.SyntaxError
		mismatch *json.UnmarshalTypeError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &tooLarge):
		return fmt.Errorf("the body is %w: it takes up to %d bytes", document.ErrTooLarge, tooLarge.Limit)
	case errors.As(err, &syntax):
		return fmt.Errorf("the body is no JSON at byte %d", syntax.Offset)
	case errors.As(err, &mismatch) && mismatch.Field != "":
		return fmt.Errorf("%s takes a string", mismatch.Field)
	case errors.As(err, &mismatch):
		return errors.New("the body takes an object")
	}
	return errors.New("the body can't be read")
}

func (a *api) get(w http.ResponseWriter, r *http.Request) {
	d, err := a.Store.Of(r.Context(), httpauth.Caller(r.Context()), r.PathValue("id"))
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	respond(w, http.StatusOK, view(d))
}

func (a *api) list(w http.ResponseWriter, r *http.Request) {
	q := document.Query{Owner: httpauth.Caller(r.Context()), Status: document.Status(r.FormValue("status")), Before: r.FormValue("before")}
	if limit := r.FormValue("limit"); limit != "" {
		var err error
		if q.Limit, err = strconv.Atoi(limit); err != nil || q.Limit < 1 || q.Limit > 1000 {
			fail(w, http.StatusBadRequest, "limit takes 1 to 1000")
			return
		}
	}
	if q.Status != "" && !q.Status.Valid() {
		fail(w, http.StatusBadRequest, "status takes queued, processing, processed or failed")
		return
	}
	if q.Before != "" && !document.ValidID(q.Before) {
		fail(w, http.StatusBadRequest, "before takes the id of a document")
		return
	}
	list, err := a.Store.List(r.Context(), q)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	views := make([]View, len(list))
	for i, d := range list {
		views[i] = view(d)
	}
	respond(w, http.StatusOK, map[string][]View{"documents": views})
}

// stored is an event of the event store as the API shows it.
type stored struct {
	Type string          `json:"type"`
	Time time.Time       `json:"time"`
	Data json.RawMessage `json:"data"`
}

func (a *api) events(w http.ResponseWriter, r *http.Request) {
	d, err := a.Store.Of(r.Context(), httpauth.Caller(r.Context()), r.PathValue("id"))
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	page, err := a.History.List(r.Context(), eventstore.Listing{Query: eventstore.Query{Subject: d.ID}})
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	all := make([]stored, len(page.Events))
	for i, e := range page.Events {
		all[i] = stored{e.Metadata.Type, e.Metadata.Time, e.Data}
	}
	respond(w, http.StatusOK, map[string][]stored{"events": all})
}

func (a *api) statistics(w http.ResponseWriter, r *http.Request) {
	counts, err := a.Statistics(r.Context(), httpauth.Caller(r.Context()))
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	respond(w, http.StatusOK, map[string]any{"categories": counts})
}

// refuse answers a request that could not be done. What an unexpected error says is for the
// log only.
func (a *api) refuse(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, document.ErrNotFound):
		fail(w, http.StatusNotFound, err.Error())
	case errors.Is(err, document.ErrConflict):
		fail(w, http.StatusConflict, "the id is taken")
	case r.Context().Err() != nil: // who asked has gone away
	default:
		a.Logger.ErrorContext(r.Context(), "request failed", "path", r.URL.Path, "error", err)
		fail(w, http.StatusInternalServerError, "something went wrong; try again")
	}
}

func fail(w http.ResponseWriter, code int, faults ...string) {
	respond(w, code, map[string][]string{"errors": faults})
}

func respond(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // who asked has gone away
}
