package handlers_test

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/handlers"
)

// console is a Notifier, Analytics and Alerter that prints.
type console struct {
	done map[string]bool // keys of the effects had
}

func (c console) print(key, text string) error {
	if !c.done[key] {
		fmt.Println(text)
		c.done[key] = true
	}
	return nil
}

func (c console) NotifyProcessed(_ context.Context, key string, d events.DocumentProcessed) error {
	return c.print(key, d.UserID+", your document "+d.DocumentID+" is ready")
}

func (c console) RecordProcessed(_ context.Context, key string, d events.DocumentProcessed) error {
	// The results are up to the processor; a type of one's own reads them.
	var results struct {
		Pages int `json:"pages"`
	}
	if err := json.Unmarshal(d.ProcessingResults, &results); err != nil {
		return err
	}
	return c.print(key, fmt.Sprintf("%d pages in %d ms", results.Pages, d.ProcessingDurationMs))
}

func (c console) AlertFailed(_ context.Context, key string, d events.DocumentFailed) error {
	return c.print(key, "document "+d.DocumentID+" failed: "+d.Error)
}

// Both handlers of one event share a table of keys.
func ExampleDocumentAnalytics() {
	out := console{done: map[string]bool{}}
	notify, analyse := handlers.UserNotification(out), handlers.DocumentAnalytics(out)

	document := events.DocumentProcessed{
		DocumentID: "d-1", UserID: "ada",
		ProcessingResults: json.RawMessage(`{"pages":3,"language":"en"}`), ProcessingDurationMs: 120,
	}
	// The bus makes this context; its metadata says which event it is.
	ctx := events.WithMetadata(context.Background(), &events.Metadata{ID: "d-1-processed", Source: "scanner"})
	for range 2 { // delivered twice
		if err := notify(ctx, document); err != nil {
			fmt.Println(err)
		}
		if err := analyse(ctx, document); err != nil {
			fmt.Println(err)
		}
	}

	// Output:
	// ada, your document d-1 is ready
	// 3 pages in 120 ms
}

func ExampleFailureAlert() {
	alert := handlers.FailureAlert(console{done: map[string]bool{}})

	ctx := events.WithMetadata(context.Background(), &events.Metadata{ID: "d-1-failed", Source: "scanner"})
	fmt.Println(alert(ctx, events.DocumentFailed{DocumentID: "d-1", Error: "no pages"}))

	// Output:
	// document d-1 failed: no pages
	// <nil>
}
