package main

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"testing"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/eventstore"
)

// What has happened to a document can be asked for, and is counted once.
func TestEvents(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	ada := s.connect(adasToken, "ada")
	id := ada.submit(t.Context(), "a.txt", letter)
	ada.final(id)
	ada.final(ada.submit(t.Context(), "b.txt", ""))

	_, body := s.request(http.MethodGet, "/documents/"+id+"/events", adasToken, nil)
	var answer struct{ Events []struct{ Type string } }
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	var types []string
	for _, e := range answer.Events {
		types = append(types, e.Type)
	}
	const progressed = "document.progressed"
	if want := []string{"document.requested", progressed, progressed, progressed, progressed, "document.processed"}; !slices.Equal(types, want) {
		t.Errorf("events are %q, want %q", types, want)
	}
	until(t, "the statistics", func() bool {
		_, body = s.request(http.MethodGet, "/statistics", adasToken, nil)
		return body == `{"categories":{"letter":1}}`
	})
	if _, body := s.request(http.MethodGet, "/statistics", bobsToken, nil); body != `{"categories":{}}` {
		t.Errorf("Bob's statistics: %s", body)
	}
}

// A read model that is made later gets what has happened before.
func TestReplay(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	ada := s.connect(adasToken, "ada")
	var ids []string
	for range 3 {
		id := ada.submit(t.Context(), "a.txt", letter)
		ada.final(id)
		ids = append(ids, id)
	}
	const three = `{"categories":{"letter":3}}`
	until(t, "the statistics", func() bool {
		_, body := s.request(http.MethodGet, "/statistics", adasToken, nil)
		return body == three
	})

	// region replay
	// A new read model: of all documents that were ever processed.
	b, err := bus.New(s.broker, bus.Config{Source: "archive"})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 100)
	bus.Subscribe(b, "index", func(_ context.Context, e events.DocumentProcessed) error {
		seen <- e.DocumentID
		return nil
	})
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	progress, err := s.history.Replay(t.Context(), s.broker, eventstore.Replay{
		ID: "index-1", Subscription: "archive.index", // it gets the past, and nobody else
		Query: eventstore.Query{Types: []string{"document.processed"}},
	})
	// endregion
	if err != nil || progress.Sent != int64(len(ids)) {
		t.Errorf("%+v, %v", progress, err)
	}
	var got []string
	for range ids {
		got = append(got, <-seen)
	}
	if slices.Sort(got); !slices.Equal(got, ids) {
		t.Errorf("it has got %q, want %q", got, ids)
	}
	if err := b.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	_, body := s.request(http.MethodGet, "/statistics", adasToken, nil)
	if body != three {
		t.Errorf("statistics are %s: somebody else has got the replay", body)
	}
}
