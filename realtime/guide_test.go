package realtime_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/bus/bustest"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/realtime"
)

type sessions interface {
	Of(r *http.Request) (realtime.Principal, error)
	MayRead(ctx context.Context, user, group string) bool
}

// region hub
func live(b *bus.Bus, mux *http.ServeMux, s sessions) (*realtime.Hub, error) {
	hub, err := realtime.New(realtime.Config{
		Bus:          b, // before it starts
		Authenticate: s.Of,
		Authorize: func(ctx context.Context, p realtime.Principal, group string) error {
			if !s.MayRead(ctx, p.ID, group) {
				return realtime.ErrForbidden
			}
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	realtime.On(hub, func(e events.DocumentProcessed) []string {
		return []string{"document_" + e.DocumentID, "user_" + e.UserID}
	})
	type failure struct { // without the stack trace, which is not for browsers
		DocumentID string `json:"documentId"`
	}
	realtime.OnView(hub,
		func(e events.DocumentFailed) []string { return []string{"document_" + e.DocumentID} },
		func(e events.DocumentFailed) failure { return failure{e.DocumentID} })
	mux.Handle("/live/", hub)
	return hub, nil
}

// endregion

type everybody struct{}

func (everybody) Of(*http.Request) (realtime.Principal, error) {
	return realtime.Principal{ID: "ada"}, nil
}

func (everybody) MayRead(_ context.Context, user, group string) bool { return group == "user_"+user }

func TestGuide(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{})
	hub, err := live(b.Bus, http.NewServeMux(), everybody{})
	if err != nil {
		t.Fatal(err)
	}
	b.Start()
	b.Publish(events.DocumentProcessed{DocumentID: "7", UserID: "ada", ProcessingResults: []byte("{}")})
	b.Idle()
	if s := hub.Stats(); s.Events != 1 || s.HistoryBytes == 0 {
		t.Errorf("stats %+v", s)
	}
	if err := hub.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
