// Package live is the page on which users see their documents move through processing: the
// hub of its events, and its files.
package live

import (
	"context"
	"embed"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/examples/documents/internal/document"
	"github.com/gotidings/tidings/examples/documents/internal/httpauth"
	"github.com/gotidings/tidings/realtime"
)

// Limits of a page: it shows 100 documents, and is in the group of each that is not final.
const (
	maxGroups   = 128
	queueLength = 1024
)

var errUnauthenticated = errors.New("the token is missing or wrong")

// DocumentGroup is the group that gets the events of a document.
func DocumentGroup(id string) string { return "document_" + id }

// UserGroup is the group that is told of a user's new documents.
func UserGroup(user string) string { return "user_" + user }

// NewHub makes the hub, with its subscription on a bus that has not started.
func NewHub(b *bus.Bus, tokens *httpauth.Tokens, store *document.Store, log *slog.Logger) (*realtime.Hub, error) {
	hub, err := realtime.New(realtime.Config{
		Bus:       b,
		MaxGroups: maxGroups, QueueLength: queueLength,
		Logger: log,
		Authenticate: func(r *http.Request) (realtime.Principal, error) {
			user, ok := tokens.Name(realtime.BearerToken(r))
			if !ok {
				return realtime.Principal{}, errUnauthenticated
			}
			return realtime.Principal{ID: user}, nil
		},
		Authorize: authorize(store),
	})
	if err != nil {
		return nil, err
	}
	realtime.On(hub, func(e document.Requested) []string { return []string{UserGroup(e.UserID)} })
	realtime.On(hub, func(e document.Progressed) []string { return []string{DocumentGroup(e.DocumentID)} })
	realtime.On(hub, func(e events.DocumentProcessed) []string { return []string{DocumentGroup(e.DocumentID)} })
	realtime.OnView(hub,
		func(e events.DocumentFailed) []string { return []string{DocumentGroup(e.DocumentID)} },
		func(e events.DocumentFailed) failure { return failure{e.DocumentID, e.Error} })
	return hub, nil
}

// failure is what pages get of a DocumentFailed: no stack trace.
type failure struct {
	DocumentID string `json:"documentId"`
	Error      string `json:"error"`
}

// authorize lets users into the groups of their documents, and their own.
func authorize(store *document.Store) func(context.Context, realtime.Principal, string) error {
	return func(ctx context.Context, p realtime.Principal, group string) error {
		if group == UserGroup(p.ID) {
			return nil
		}
		id, ok := strings.CutPrefix(group, DocumentGroup(""))
		if !ok {
			return realtime.ErrForbidden
		}
		_, err := store.Of(ctx, p.ID, id)
		if errors.Is(err, document.ErrNotFound) {
			return realtime.ErrForbidden
		}
		return err
	}
}

//go:embed web
var web embed.FS

// Page serves the page and its script.
func Page() http.Handler {
	files, err := fs.Sub(web, "web")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	server := http.FileServerFS(files)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; style-src 'self' 'unsafe-inline'")
		w.Header().Set("Cache-Control", "no-cache")
		server.ServeHTTP(w, r)
	})
}
