// Package client is a client of the example's own REST API and live updates, as another
// service would have it.
package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/gotidings/tidings/examples/documents/internal/api"
	"github.com/gotidings/tidings/examples/documents/internal/httpauth"
	"github.com/gotidings/tidings/examples/documents/internal/httpclient"
)

// Client calls the REST API for one user.
type Client struct{ http *httpclient.Client }

// New makes a client of the API at a URL. A nil transport means http.DefaultTransport.
func New(base, token string, transport http.RoundTripper) (*Client, error) {
	c, err := httpclient.New(httpclient.Config{
		Name: "documents", BaseURL: base, Transport: transport, RetryDelay: 100 * time.Millisecond,
		Auth: httpauth.Bearer(httpauth.StaticToken(token)),
	})
	return &Client{c}, err
}

// Submit submits a document. The id is a new UUID of the caller's, with which it can be
// submitted again.
func (c *Client) Submit(ctx context.Context, id, name, content string) (api.View, error) {
	return httpclient.Do(ctx, c.http, httpclient.Request[api.View]{
		Method: http.MethodPost, Path: "/documents", IdempotencyKey: id,
		Body: map[string]string{"id": id, "name": name, "content": content},
	})
}

// Get returns a document.
func (c *Client) Get(ctx context.Context, id string) (api.View, error) {
	return httpclient.Do(ctx, c.http, httpclient.Request[api.View]{Method: http.MethodGet, Path: "/documents/" + url.PathEscape(id)})
}
