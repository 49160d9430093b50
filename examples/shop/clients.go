package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
)

// parallel is how many requests of the load are under way at a time.
const parallel = 16

// clients are the customers of a load.
type clients struct {
	base string // URL
	run  string // begins their e-mail addresses
	http http.Client

	mu       sync.Mutex     // guards what follows
	accepted map[int64]bool // orders that the shop has said yes to
}

func newClients(base, run string) *clients {
	c := &clients{base: base, run: run, accepted: make(map[int64]bool)}
	c.http.Transport = &http.Transport{MaxIdleConnsPerHost: parallel}
	return c
}

func (c *clients) close() { c.http.CloseIdleConnections() }

// orders returns which orders were accepted.
func (c *clients) orders() map[int64]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[int64]bool, len(c.accepted))
	for id := range c.accepted {
		out[id] = true
	}
	return out
}

// place registers customers and places n orders for them.
func (c *clients) place(ctx context.Context, n int) error {
	customers := make([]int64, n/8+1)
	err := each(ctx, len(customers), func(ctx context.Context, i int) error {
		var answer struct{ CustomerID int64 }
		err := c.post(ctx, "/customers", customer{Name: fmt.Sprintf("Customer %d", i), Email: fmt.Sprintf("%s-%d@example.com", c.run, i)}, &answer)
		customers[i] = answer.CustomerID
		return err
	})
	if err != nil {
		return err
	}
	return each(ctx, n, func(ctx context.Context, _ int) error {
		order := orderRequest{CustomerID: customers[rand.IntN(len(customers))]}
		for range 1 + rand.IntN(3) {
			order.Items = append(order.Items, itemRequest{ProductID: 1 + rand.Int64N(products), Quantity: 1 + rand.Int64N(5)})
		}
		var answer struct{ OrderID int64 }
		if err := c.post(ctx, "/orders", order, &answer); err != nil {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.accepted[answer.OrderID] = true
		return nil
	})
}

// each calls f for 0 to n-1, several at a time, and stops at the first error.
func each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	for range parallel {
		all.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(ctx, i); err != nil {
					fail(err)
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// post sends a request and reads the answer.
func (c *clients) post(ctx context.Context, path string, body, answer any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	data, err = io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusCreated:
		return fmt.Errorf("POST %s: %s: %s", path, resp.Status, bytes.TrimSpace(data))
	}
	return json.Unmarshal(data, answer)
}
