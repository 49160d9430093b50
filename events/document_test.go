package events_test

import (
	"encoding/json"
	"testing"

	"github.com/gotidings/tidings/events"
)

func TestDocumentProcessedValidate(t *testing.T) {
	t.Parallel()
	const noObject = "processingResults is not a JSON object"
	results := func(text string) func(*events.DocumentProcessed) {
		return func(e *events.DocumentProcessed) { e.ProcessingResults = json.RawMessage(text) }
	}
	tests := []struct {
		name   string
		change func(*events.DocumentProcessed)
		want   []string
	}{
		{"good", func(*events.DocumentProcessed) {}, nil},
		{"no document", func(e *events.DocumentProcessed) { e.DocumentID = "" }, []string{"documentId is empty"}},
		{"no user", func(e *events.DocumentProcessed) { e.UserID = "" }, []string{"userId is empty"}},
		{"line break in the document's id", func(e *events.DocumentProcessed) { e.DocumentID = "d\n1" }, []string{
			"documentId has the control character U+000A at byte 1",
		}},
		{"broken Unicode in the user's id", func(e *events.DocumentProcessed) { e.UserID = "u\xff" }, []string{
			"userId is not valid UTF-8 at byte 1",
		}},
		{"duration 0", func(e *events.DocumentProcessed) { e.ProcessingDurationMs = 0 }, nil},
		{"duration negative", func(e *events.DocumentProcessed) { e.ProcessingDurationMs = -1 }, []string{"processingDurationMs is negative"}},
		{"results empty", results(`{}`), nil},
		{"results with space around", results(" \r\n\t{\"a\": 1} "), nil},
		{"results absent", results(""), []string{noObject}},
		{"results null", results("null"), []string{noObject}},
		{"results an array", results("[{}]"), []string{noObject}},
		{"results a string", results(`"{}"`), []string{noObject}},
		{"results cut off", results(`{"a":`), []string{noObject}},
		{"results and more", results(`{} {}`), []string{noObject}},
		{"all wrong", func(e *events.DocumentProcessed) { *e = events.DocumentProcessed{ProcessingDurationMs: -1} }, []string{
			"documentId is empty", "userId is empty", noObject, "processingDurationMs is negative",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := events.DocumentProcessed{
				DocumentID: "d-1", UserID: "u-2", ProcessingResults: json.RawMessage(`{"pages":3}`), ProcessingDurationMs: 12,
			}
			tt.change(&e)
			checkFaults(t, e.Validate(), tt.want...)
		})
	}
}

func TestDocumentFailedValidate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		event events.DocumentFailed
		want  []string
	}{
		{"good", events.DocumentFailed{DocumentID: "d", Error: "e", StackTrace: "main.go:1\nmain.go:2"}, nil},
		{"no stack", events.DocumentFailed{DocumentID: "d", Error: "e"}, nil},
		{"several lines of error", events.DocumentFailed{DocumentID: "d", Error: "one\ntwo"}, nil},
		{"no document", events.DocumentFailed{Error: "e"}, []string{"documentId is empty"}},
		{"no error", events.DocumentFailed{DocumentID: "d"}, []string{"error is empty"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			checkFaults(t, tt.event.Validate(), tt.want...)
		})
	}
}
