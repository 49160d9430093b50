// Package analysis is the service that reads documents, with its client. The service is a
// stand-in for real ones: it does little, and can be made flaky.
package analysis

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/gotidings/tidings/examples/documents/internal/document"
	"github.com/gotidings/tidings/examples/documents/internal/httpclient"
)

// Client does the steps of a document by calls of the service. When the service is not to be
// had, each step has a fallback that needs none, and says so in the results: a poor answer
// now is better for a reader than a good one tomorrow.
type Client struct{ c *httpclient.Client }

// NewClient makes a client of a service.
func NewClient(c *httpclient.Client) *Client { return &Client{c} }

// Extract sets the text and counts its words. The fallback takes the document as it is.
func (c *Client) Extract(ctx context.Context, d *document.Document) error {
	answer, err := call(ctx, c.c, document.Extract, d, d.Content, func() extracted {
		return extracted{d.Content, len(strings.Fields(d.Content))}
	})
	d.Results.Text, d.Results.Words = answer.Text, answer.Words
	return err
}

// Classify sets the category. The fallback knows none.
func (c *Client) Classify(ctx context.Context, d *document.Document) error {
	answer, err := call(ctx, c.c, document.Classify, d, d.Results.Text, func() classified { return classified{"unknown"} })
	d.Results.Category = answer.Category
	return err
}

// Summarise sets the summary. The fallback is the beginning of the text.
func (c *Client) Summarise(ctx context.Context, d *document.Document) error {
	answer, err := call(ctx, c.c, document.Summarise, d, d.Results.Text, func() summarised {
		return summarised{strings.Join(strings.Fields(d.Results.Text), " ")}
	})
	d.Results.Summary = shorten(answer.Summary)
	return err
}

// maxSummary is what is kept of a summary, in characters, whatever the service has answered:
// it is in events and in lists of documents.
const maxSummary = 200

func shorten(s string) string {
	n := 0
	for i := range s {
		if n == maxSummary {
			return s[:i] + "…"
		}
		n++
	}
	return s
}

// call makes the call of a step. The key makes it one that may be repeated, and is the same
// after a redelivery.
func call[Out any](ctx context.Context, c *httpclient.Client, step document.Step, d *document.Document, s string, instead func() Out) (Out, error) {
	answer, err := httpclient.Do(ctx, c, httpclient.Request[Out]{
		Method: http.MethodPost, Path: "/" + string(step), Body: text{s},
		IdempotencyKey: d.ID + "-" + string(step),
		Fallback: func(ctx context.Context, cause error) (out Out, err error) {
			if ctx.Err() != nil { // a worker that stops: the next one may find the service
				return out, cause
			}
			d.Results.Degraded = append(d.Results.Degraded, step)
			return instead(), nil
		},
	})
	// 422 is about the document. Other refusals, such as 401, are about us.
	if e, ok := errors.AsType[*httpclient.Error](err); ok && e.Status == http.StatusUnprocessableEntity {
		return answer, fmt.Errorf("%w: %s", document.ErrRejected, strings.TrimSpace(string(e.Body)))
	}
	return answer, err
}
