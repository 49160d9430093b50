package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/gotidings/tidings/eventstore"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

func (a *app) eventsCommand() *cobra.Command {
	return group("events", "Events that are stored: list, show, tree, replay",
		a.eventsList(), a.eventsShow(), a.eventsTree(), a.eventsReplay())
}

// withStore opens the store in the database of --transport, and the transport.
func (a *app) withStore(ctx context.Context, fn func(s *eventstore.Store, t transports.Transport) error) error {
	return a.with(ctx, look, func(t transports.Transport) error {
		log, ok := t.(*tsql.Transport)
		if !ok {
			return usagef("events are stored in a database; --transport must be that one, such as postgres://user:password@host/database")
		}
		call, cancel := a.bounded(ctx)
		defer cancel()
		s, err := eventstore.New(call, eventstore.Config{Log: log})
		if err != nil {
			return err
		}
		return errors.Join(fn(s, t), s.Close())
	})
}

// storedEvent is an event of the store.
type storedEvent struct {
	Cursor        string            `json:"cursor"`
	ID            string            `json:"id"`
	Source        string            `json:"source"`
	Type          string            `json:"type"`
	Subject       string            `json:"subject,omitempty"`
	CorrelationID string            `json:"correlationId,omitempty"`
	CausationID   string            `json:"causationId,omitempty"`
	Time          *time.Time        `json:"time"`
	Stored        *time.Time        `json:"stored"`
	Metadata      map[string]string `json:"metadata,omitempty"`
	Data          json.RawMessage   `json:"data,omitempty"`       // when it is JSON
	DataText      string            `json:"dataText,omitempty"`   // when it is other text
	DataBase64    string            `json:"dataBase64,omitempty"` // when it is neither
}

func storedOf(e eventstore.Event) storedEvent {
	md := e.Metadata
	return storedEvent{
		Cursor: string(e.Cursor), ID: md.ID, Source: md.Source, Type: e.Topic, Subject: md.Subject,
		CorrelationID: md.CorrelationID, CausationID: md.CausationID, Time: timestamp(md.Time), Stored: timestamp(e.Stored),
	}
}

func (s storedEvent) withData(e eventstore.Event) storedEvent {
	s.Metadata = maps.Clone(map[string]string(e.Message.Metadata))
	switch {
	case json.Valid(e.Data):
		s.Data = e.Data
	case utf8.Valid(e.Data):
		s.DataText = string(e.Data)
	default:
		s.DataBase64 = base64.StdEncoding.EncodeToString(e.Data)
	}
	return s
}

// queryFlags are those that say which events.
type queryFlags struct {
	q           eventstore.Query
	since, till string
}

func (f *queryFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.q.Types, "type", nil, "`PATTERN` of types, such as order.*; may be repeated; all when not given")
	flags.StringVar(&f.q.Subject, "subject", "", "the events of a subject")
	flags.StringVar(&f.q.CorrelationID, "correlation", "", "the events of a correlation `ID`")
	flags.StringVar(&f.since, "since", "", "stored at this `TIME` or later: 2026-01-31T15:04:05Z, or 24h for 24 hours ago")
	flags.StringVar(&f.till, "until", "", "stored before this `TIME`")
}

func (f *queryFlags) query() (eventstore.Query, error) {
	for _, v := range []struct {
		flag, text string
		at         *time.Time
	}{{"since", f.since, &f.q.From}, {"until", f.till, &f.q.To}} {
		if v.text == "" {
			continue
		}
		if d, err := time.ParseDuration(v.text); err == nil {
			*v.at = time.Now().Add(-d)
		} else if *v.at, err = time.Parse(time.RFC3339, v.text); err != nil {
			return f.q, usagef("--%s is %.40q; it takes a time such as 2026-01-31T15:04:05Z, or a duration such as 24h", v.flag, v.text)
		}
	}
	return f.q, nil
}

func (a *app) eventsList() *cobra.Command {
	var f queryFlags
	var l eventstore.Listing
	var after string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List stored events, the newest first",
		Long: `Lists what was published, from the log in the database of --transport, the newest first. A
page ends with the cursor of the next one. Subjects and correlation ids are found
quickly where a service keeps the index of the event store, and by reading otherwise.`,
		Example: `  tidings events list --type 'order.*' --since 24h
  tidings events list --correlation 0195f3a2-7c1e-7abc-8def-0123456789ab --oldest -o json`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if l.Query, err = f.query(); err != nil {
				return err
			}
			l.After, l.Newest = eventstore.Cursor(after), !l.Newest
			return a.withStore(cmd.Context(), func(s *eventstore.Store, _ transports.Transport) error {
				ctx, cancel := a.bounded(cmd.Context())
				defer cancel()
				page, err := s.List(ctx, l)
				if err != nil {
					return invalid(err)
				}
				events := []storedEvent{}
				tab := &table{header: []string{"STORED", "TYPE", "ID", "SOURCE", "SUBJECT", "CORRELATION"}}
				for _, e := range page.Events {
					ev := storedOf(e)
					events = append(events, ev)
					tab.add(agoOf(ev.Stored), ev.Type, ev.ID, ev.Source, ev.Subject, ev.CorrelationID)
				}
				if page.Next != "" {
					a.say("there are more: --after %s", page.Next)
				}
				return a.print(events, tab)
			})
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&l.Newest, "oldest", false, "the oldest first")
	cmd.Flags().IntVar(&l.Limit, "limit", 0, "events of a page, 1000 at most; 0 means 100")
	cmd.Flags().StringVar(&after, "after", "", "`CURSOR` that the page before has ended with")
	return cmd
}

// invalid makes usage errors of what the store says of its arguments.
func invalid(err error) error {
	if errors.Is(err, eventstore.ErrInvalid) {
		return &usageError{err}
	}
	return err
}

func (a *app) eventsShow() *cobra.Command {
	var source string
	cmd := &cobra.Command{
		Use:     "show ID",
		Short:   "Show a stored event with its metadata and data",
		Example: `  tidings events show 0195f3a2-7c1e-7abc-8def-0123456789ab`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withStore(cmd.Context(), func(s *eventstore.Store, _ transports.Transport) error {
				ctx, cancel := a.bounded(cmd.Context())
				defer cancel()
				e, err := s.Get(ctx, source, args[0])
				if err != nil {
					return invalid(err)
				}
				ev := storedOf(e).withData(e)
				if a.output == "json" {
					return a.printJSON(ev)
				}
				fmt.Fprintf(a.out, "%-15s %s\n%-15s %s\n", "type", printable(ev.Type), "stored", e.Stored.Format(time.RFC3339Nano))
				fmt.Fprintf(a.out, "%-15s %s\n", "id", printable(ev.ID))
				for _, key := range slices.Sorted(maps.Keys(ev.Metadata)) {
					fmt.Fprintf(a.out, "%-15s %s\n", printable(strings.TrimPrefix(key, "ce_")), printable(ev.Metadata[key]))
				}
				switch {
				case ev.DataBase64 != "":
					fmt.Fprintf(a.out, "\n%s\n", ev.DataBase64)
				default:
					fmt.Fprintf(a.out, "\n%s\n", printable(string(e.Data)))
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&source, "source", "", "the source of the event, where ids are not unique")
	return cmd
}

// treeNode is a node of a tree of causes.
type treeNode struct {
	ID      string       `json:"id"`
	Event   *storedEvent `json:"event"` // null when the store does not have it
	Asked   bool         `json:"asked"`
	Effects []treeNode   `json:"effects"`
}

func treeOf(n *eventstore.Node) treeNode {
	t := treeNode{ID: n.ID, Asked: n.Asked, Effects: []treeNode{}}
	if n.Event != nil {
		ev := storedOf(*n.Event)
		t.Event = &ev
	}
	for _, effect := range n.Effects {
		t.Effects = append(t.Effects, treeOf(effect))
	}
	return t
}

func (a *app) eventsTree() *cobra.Command {
	var source string
	cmd := &cobra.Command{
		Use:   "tree ID",
		Short: "Show what has led to an event, and what has come of it",
		Long: `Shows all that the first cause of an event has led to: below each event are those that its
handlers have published. The event that was asked for has a star.`,
		Example: `  tidings events tree 0195f3a2-7c1e-7abc-8def-0123456789ab`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withStore(cmd.Context(), func(s *eventstore.Store, _ transports.Transport) error {
				ctx, cancel := a.bounded(cmd.Context())
				defer cancel()
				tree, err := s.Tree(ctx, source, args[0])
				if err != nil {
					return invalid(err)
				}
				if tree.Truncated {
					a.say("there are more events than are shown")
				}
				if a.output == "json" {
					return a.printJSON(treeOf(tree.Root))
				}
				a.printTree(tree.Root, 0)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&source, "source", "", "the source of the event, where ids are not unique")
	return cmd
}

func (a *app) printTree(n *eventstore.Node, depth int) {
	what, mark := "(not in the store)", ""
	if n.Event != nil {
		what = n.Event.Topic + "  " + n.Event.Metadata.Source
	}
	if n.Asked {
		mark = " *"
	}
	fmt.Fprintf(a.out, "%s%s  %s%s\n", strings.Repeat("  ", depth), printable(n.ID), printable(what), mark)
	for _, effect := range n.Effects {
		a.printTree(effect, depth+1)
	}
}
