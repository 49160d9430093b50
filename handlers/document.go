package handlers

import (
	"context"
	"fmt"

	"github.com/gotidings/tidings/events"
)

// Notifier tells users about their documents.
type Notifier interface {
	// NotifyProcessed tells the user document.UserID that the document is
	// ready. It
	//
	//   - is called concurrently, up to the concurrency of the subscription,
	//   - returns nil when the notification is accepted for delivery, not before,
	//   - notifies nobody and returns nil when an earlier call with the same key
	//     has returned nil,
	//   - may be called again with the same key after an error, and doesn't
	//     retry on its own,
	//   - does not change document.ProcessingResults,
	//   - returns when ctx ends.
	NotifyProcessed(ctx context.Context, key string, document events.DocumentProcessed) error
}

// Analytics records what is done with documents.
type Analytics interface {
	// RecordProcessed adds a processed document to the statistics. It
	//
	//   - is called concurrently, up to the concurrency of the subscription,
	//   - returns nil when the record is durable, not before,
	//   - records nothing and returns nil when an earlier call with the same key
	//     has returned nil, so that no document counts twice,
	//   - may be called again with the same key after an error, and doesn't
	//     retry on its own,
	//   - does not change document.ProcessingResults,
	//   - returns when ctx ends.
	//
	// When the document was processed is the time of the event's metadata, see
	// [events.MetadataFrom], not the time of the call.
	RecordProcessed(ctx context.Context, key string, document events.DocumentProcessed) error
}

// Alerter alerts those who run the service.
type Alerter interface {
	// AlertFailed raises an alert for a document that could not be processed. It
	//
	//   - is called concurrently, up to the concurrency of the subscription,
	//   - returns nil when the alert is raised, not before,
	//   - raises nothing and returns nil when an earlier call with the same key
	//     has returned nil, also when that alert has been closed since,
	//   - may be called again with the same key after an error, and doesn't
	//     retry on its own,
	//   - returns when ctx ends.
	//
	// The error and the stack trace are text from outside, of any length.
	AlertFailed(ctx context.Context, key string, document events.DocumentFailed) error
}

// UserNotification returns a handler that tells the user of each processed
// document. It is idempotent as far as the notifier is. It panics when n is nil.
func UserNotification(n Notifier) func(context.Context, events.DocumentProcessed) error {
	if n == nil {
		panic("handlers: UserNotification: nil Notifier")
	}
	return func(ctx context.Context, e events.DocumentProcessed) error {
		if err := n.NotifyProcessed(ctx, key(ctx, "user-notification"), e); err != nil {
			return fmt.Errorf("notify user %q of document %q: %w", e.UserID, e.DocumentID, err)
		}
		return nil
	}
}

// DocumentAnalytics returns a handler that records each processed document. It
// is idempotent as far as the analytics are. It panics when a is nil.
func DocumentAnalytics(a Analytics) func(context.Context, events.DocumentProcessed) error {
	if a == nil {
		panic("handlers: DocumentAnalytics: nil Analytics")
	}
	return func(ctx context.Context, e events.DocumentProcessed) error {
		if err := a.RecordProcessed(ctx, key(ctx, "document-analytics"), e); err != nil {
			return fmt.Errorf("record document %q: %w", e.DocumentID, err)
		}
		return nil
	}
}

// FailureAlert returns a handler that raises an alert for each document that
// could not be processed. It is idempotent as far as the alerter is. It panics
// when a is nil.
func FailureAlert(a Alerter) func(context.Context, events.DocumentFailed) error {
	if a == nil {
		panic("handlers: FailureAlert: nil Alerter")
	}
	return func(ctx context.Context, e events.DocumentFailed) error {
		if err := a.AlertFailed(ctx, key(ctx, "failure-alert"), e); err != nil {
			return fmt.Errorf("alert of document %q: %w", e.DocumentID, err)
		}
		return nil
	}
}
