package document

import (
	"encoding/json"
	"fmt"

	"github.com/gotidings/tidings/events"
)

// Requested says that somebody wants a document processed. It is the message that the queue
// processor takes; DocumentProcessed or DocumentFailed of package events is its answer.
type Requested struct {
	DocumentID string `json:"documentId"`
	UserID     string `json:"userId"`
}

// Progressed says how far a document is that is being processed.
type Progressed struct {
	DocumentID  string `json:"documentId"`
	UserID      string `json:"userId"`
	Status      Status `json:"status"`
	Step        Step   `json:"step"`
	Progress    int    `json:"progress"`    // percent
	RemainingMs int64  `json:"remainingMs"` // estimated, milliseconds
	Version     int64  `json:"version"`     // of the document: who has a newer one passes the event over
}

var (
	_ events.Keyed = Requested{}
	_ events.Keyed = Progressed{}
)

// RequestedType is the wire name of [Requested], to which the queue is bound.
const RequestedType = "document.requested"

// EventType returns "document.requested".
func (Requested) EventType() string { return RequestedType }

// EventType returns "document.progressed".
func (Progressed) EventType() string { return "document.progressed" }

// PartitionKey is that of all events of the document.
func (e Requested) PartitionKey() string { return "document-" + e.DocumentID }

// PartitionKey is that of all events of the document.
func (e Progressed) PartitionKey() string { return "document-" + e.DocumentID }

// event returns the event that tells of the document as it is now.
func (d *Document) event() (any, error) {
	switch d.Status {
	case Queued:
		return Requested{DocumentID: d.ID, UserID: d.Owner}, nil
	case Processing:
		return Progressed{
			DocumentID: d.ID, UserID: d.Owner, Status: d.Status, Step: d.Step, Progress: d.Progress,
			RemainingMs: d.Remaining.Milliseconds(), Version: d.Version,
		}, nil
	case Processed:
		results, err := json.Marshal(d.Results)
		if err != nil {
			return nil, fmt.Errorf("results of document %s: %w", d.ID, err)
		}
		return events.DocumentProcessed{
			DocumentID: d.ID, UserID: d.Owner, ProcessingResults: results,
			ProcessingDurationMs: max(0, d.UpdatedAt.Sub(d.CreatedAt).Milliseconds()),
		}, nil
	default:
		return events.DocumentFailed{DocumentID: d.ID, Error: d.Error}, nil
	}
}
