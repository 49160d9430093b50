package eventstoretest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gotidings/tidings/eventstore"
	"github.com/gotidings/tidings/transports"
)

func TestQueries(t *testing.T) {
	t.Parallel()
	eachWorld(t, func(t *testing.T, w *world) {
		t.Helper()
		w.publish(t,
			event("order.created", "a", "subject", "order-1", "correlationid", "a"),
			event("order.paid", "b", "subject", "order-1", "correlationid", "a", "causationid", "a"),
			event("customer.created", "c", "subject", "customer-1", "correlationid", "c"))
		w.publish(t, event("order.created", "d", "subject", "Order-1", "correlationid", "A"))
		now := time.Now()
		for name, tt := range map[string]struct {
			query eventstore.Query
			want  string
		}{
			"all":                     {eventstore.Query{}, "a b c d"},
			"type":                    {eventstore.Query{Types: []string{"order.created"}}, "a d"},
			"pattern":                 {eventstore.Query{Types: []string{"order.*"}}, "a b d"},
			"types":                   {eventstore.Query{Types: []string{"customer.#", "order.paid"}}, "b c"},
			"none of the type":        {eventstore.Query{Types: []string{"order"}}, ""},
			"subject, byte by byte":   {eventstore.Query{Subject: "order-1"}, "a b"},
			"correlation":             {eventstore.Query{CorrelationID: "a"}, "a b"},
			"causation":               {eventstore.Query{CausationID: "a"}, "b"},
			"id":                      {eventstore.Query{ID: "c"}, "c"},
			"source":                  {eventstore.Query{Source: "elsewhere"}, ""},
			"subject and type":        {eventstore.Query{Subject: "order-1", Types: []string{"*.paid"}}, "b"},
			"time":                    {eventstore.Query{From: now.Add(-time.Hour), To: now.Add(time.Hour)}, "a b c d"},
			"before":                  {eventstore.Query{To: now.Add(-time.Hour)}, ""},
			"after":                   {eventstore.Query{From: now.Add(time.Hour)}, ""},
			"the event's own time":    {eventstore.Query{To: time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)}, ""},
			"correlation and subject": {eventstore.Query{CorrelationID: "a", Subject: "customer-1"}, ""},
		} {
			want := strings.Fields(tt.want)
			for _, newest := range []bool{false, true} {
				for _, limit := range []int{1, 2, 100} {
					var got []string
					l := eventstore.Listing{Query: tt.query, Newest: newest, Limit: limit}
					for {
						page, err := w.store.List(t.Context(), l)
						if err != nil {
							t.Fatalf("%s: %v", name, err)
						}
						if len(page.Events) > limit {
							t.Fatalf("%s: a page of %d with the limit %d", name, len(page.Events), limit)
						}
						got = append(got, ids(page.Events)...)
						if l.After = page.Next; l.After == "" {
							break
						}
					}
					if newest {
						slices.Reverse(got)
					}
					if !slices.Equal(got, want) {
						t.Errorf("%s, newest %t, limit %d: %q; want %q", name, newest, limit, got, want)
					}
				}
			}
		}
		e, err := w.store.Get(t.Context(), "test", "b")
		if err != nil || string(e.Data) != `{"n":"b"}` || e.Metadata.CausationID != "a" || e.Topic != "order.paid" ||
			e.Metadata.Time.Year() != 2020 || now.Sub(e.Stored).Abs() > time.Minute {
			t.Errorf("got %+v, %v", e, err)
		}
		if _, err := w.store.Get(t.Context(), "", "z"); !errors.Is(err, eventstore.ErrNotFound) {
			t.Errorf("an unknown event: %v", err)
		}
		for name, l := range map[string]eventstore.Listing{
			"cursor":  {After: "x"},
			"pattern": {Query: eventstore.Query{Types: []string{"a*"}}},
			"range":   {Query: eventstore.Query{From: now, To: now}},
			"limit":   {Limit: 1001},
		} {
			if _, err := w.store.List(t.Context(), l); !errors.Is(err, eventstore.ErrInvalid) {
				t.Errorf("%s: %v; want ErrInvalid", name, err)
			}
		}
	})
}

// What is published after the index was made is found too, and values of any length and kind.
func TestIndexFollowsTheLog(t *testing.T) {
	t.Parallel()
	eachWorld(t, func(t *testing.T, w *world) {
		t.Helper()
		long := strings.Repeat("long ", 1000) + "\x00\xff"
		for round := range 3 {
			w.publish(t, event("t", fmt.Sprint("x", round), "subject", long), event("t", fmt.Sprint("y", round), "subject", "other"))
			page, err := w.store.List(t.Context(), eventstore.Listing{Query: eventstore.Query{Subject: long}})
			if err != nil || len(page.Events) != round+1 {
				t.Fatalf("round %d: %d events, %v", round, len(page.Events), err)
			}
		}
	})
}

func tree(n *eventstore.Node) string {
	s := n.ID
	if n.Event == nil {
		s += "?"
	}
	if n.Asked {
		s += "!"
	}
	if len(n.Effects) > 0 {
		var parts []string
		for _, e := range n.Effects {
			parts = append(parts, tree(e))
		}
		s += "(" + strings.Join(parts, " ") + ")"
	}
	return s
}

func TestTree(t *testing.T) {
	t.Parallel()
	eachWorld(t, func(t *testing.T, w *world) {
		t.Helper()
		caused := func(id, correlation, cause string) transports.Outgoing {
			return event("t", id, "correlationid", correlation, "causationid", cause)
		}
		w.publish(t,
			event("t", "a"), caused("b", "a", "a"), caused("c", "a", "b"), caused("d", "a", "a"), caused("other", "z", "a"),
			caused("c", "a", "b"),                                  // a second copy
			caused("lost-child", "q", "gone"),                      // its cause is not there
			caused("x", "circle", "y"), caused("y", "circle", "x"), // a circle
			event("t", "alone"))
		for id, want := range map[string]string{
			"c": "a(b(c!) d)", "a": "a!(b(c) d)", "d": "a(b(c) d!)", "lost-child": "gone?(lost-child!)", "alone": "alone!", "x": "y(x!)",
		} {
			got, err := w.store.Tree(t.Context(), "", id)
			if err != nil {
				t.Fatalf("%s: %v", id, err)
			}
			if s := tree(got.Root); s != want {
				t.Errorf("%s: %s; want %s", id, s, want)
			}
		}
		if _, err := w.store.Tree(t.Context(), "", "none"); !errors.Is(err, eventstore.ErrNotFound) {
			t.Errorf("an unknown event: %v", err)
		}
	})
}

// An event is in the store before it is published, and is not published when it can't be.
func TestRecord(t *testing.T) {
	t.Parallel()
	for name, open := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, open, eventstore.Config{FollowInterval: -1})
			var sent []string
			publish := w.store.Record(func(ctx context.Context, batch []transports.Outgoing) error {
				for _, out := range batch {
					if _, err := w.store.Get(ctx, "test", out.Message.UUID); err != nil {
						t.Errorf("published before it was stored: %v", err)
					}
					sent = append(sent, out.Message.UUID)
					out.Message.Payload[0] = 'X' // it is the transport's
				}
				return nil
			})
			tooLong := event("t", "b")
			tooLong.Topic = strings.Repeat("x", 2000)
			delayed := event("t", "c")
			delayed.Delay = time.Hour
			err := publish(t.Context(), []transports.Outgoing{event("t", "a"), tooLong, delayed})
			var failed *transports.PublishError
			if !errors.As(err, &failed) || len(failed.Failures) != 1 || failed.Failures[0].Index != 1 {
				t.Errorf("error %v; want that of the second", err)
			}
			if !slices.Equal(sent, []string{"a", "c"}) {
				t.Errorf("published %q; want a and c", sent)
			}
			if e, err := w.store.Get(t.Context(), "", "a"); err != nil || string(e.Data) != `{"n":"a"}` {
				t.Errorf("stored %s, %v", e.Data, err)
			}
			if err := w.log.Close(); err != nil {
				t.Fatal(err)
			}
			if err := publish(t.Context(), []transports.Outgoing{event("t", "d")}); !errors.Is(err, transports.ErrClosed) || len(sent) != 2 {
				t.Errorf("with the store gone: %v, published %q", err, sent)
			}
		})
	}
}
