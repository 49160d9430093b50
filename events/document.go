package events

import (
	"bytes"
	"encoding/json"
)

// DocumentProcessed says that a user's document has been processed.
type DocumentProcessed struct {
	DocumentID string `json:"documentId"` // not empty, no control characters
	UserID     string `json:"userId"`     // not empty, no control characters

	// ProcessingResults is a JSON object whose members are up to the processor.
	// It is kept as text because a map[string]any would turn its numbers into
	// floats: the id 9007199254740993 would arrive as 9007199254740992. A
	// handler unmarshals it into a type of its own. White space is not kept.
	ProcessingResults json.RawMessage `json:"processingResults"`

	ProcessingDurationMs int64 `json:"processingDurationMs"` // milliseconds, not negative
}

// DocumentFailed says that a document could not be processed.
type DocumentFailed struct {
	DocumentID string `json:"documentId"`           // not empty, no control characters
	Error      string `json:"error"`                // what went wrong; not empty
	StackTrace string `json:"stackTrace,omitempty"` // optional
}

var (
	_ Event     = DocumentProcessed{}
	_ Keyed     = DocumentProcessed{}
	_ Validator = DocumentProcessed{}
	_ Event     = DocumentFailed{}
	_ Keyed     = DocumentFailed{}
	_ Validator = DocumentFailed{}
)

// EventType returns "document.processed".
func (DocumentProcessed) EventType() string { return "document.processed" }

// EventType returns "document.failed".
func (DocumentFailed) EventType() string { return "document.failed" }

// PartitionKey returns the document's key, "document-" and its id: all events of
// one document have the same.
func (e DocumentProcessed) PartitionKey() string { return "document-" + e.DocumentID }

// PartitionKey returns the document's key, "document-" and its id: all events of
// one document have the same.
func (e DocumentFailed) PartitionKey() string { return "document-" + e.DocumentID }

// Validate reports every field that breaks its rule as a [*ValidationError].
func (e DocumentProcessed) Validate() error {
	var f faults
	f.check("documentId", idProblem(e.DocumentID))
	f.check("userId", idProblem(e.UserID))
	if !isObject(e.ProcessingResults) {
		f.check("processingResults", "is not a JSON object")
	}
	if e.ProcessingDurationMs < 0 {
		f.check("processingDurationMs", "is negative")
	}
	return f.err()
}

// Validate reports every field that breaks its rule as a [*ValidationError].
func (e DocumentFailed) Validate() error {
	var f faults
	f.check("documentId", idProblem(e.DocumentID))
	if e.Error == "" {
		f.check("error", "is empty")
	}
	return f.err()
}

// isObject reports whether text is one whole JSON object.
func isObject(text json.RawMessage) bool {
	return bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{")) && json.Valid(text)
}
