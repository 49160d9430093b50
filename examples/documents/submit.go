package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/examples/documents/internal/client"
)

// inputFiles returns the files that are to be processed at the start.
func (c *config) inputFiles() ([]file, error) {
	if !c.has(roleAPI) || (c.input == "" && !c.whole()) {
		return nil, nil
	}
	return readInput(c.input)
}

// tell says where the page is.
func (s *service) tell(stdout io.Writer) {
	if s.api == nil {
		return
	}
	token, _ := s.demoUser()
	address := s.server.url() + "/"
	if s.cfg.showToken {
		address += "#token=" + token
	}
	fmt.Fprintf(stdout, "The page:  %s\nREST:      %s/documents   gRPC: %s\n", address, s.server.url(), s.api.grpcListener.Addr())
	if s.cfg.showToken {
		fmt.Fprintf(stdout, "Token:     %s   (Authorization: Bearer …)\n", token)
	}
}

// demoUser returns the user for whom the input is processed, the first by name, with a token.
func (s *service) demoUser() (token, user string) {
	all := slices.SortedFunc(maps.Keys(s.cfg.tokens), func(a, b string) int {
		if s.cfg.tokens[a] < s.cfg.tokens[b] {
			return -1
		}
		return 1
	})
	return all[0], s.cfg.tokens[all[0]]
}

// submitAll submits files, as a user would do it over the REST API.
func (s *service) submitAll(ctx context.Context, files []file) {
	if len(files) == 0 {
		return
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	token, _ := s.demoUser()
	c, err := client.New(s.server.url(), token, transport)
	if err != nil {
		s.log.Error("the input can't be submitted", "error", err)
		return
	}
	for _, f := range files {
		if _, err := c.Submit(ctx, events.NewID(), f.name, f.content); err != nil {
			s.log.Error("a file can't be submitted", "name", f.name, "error", err)
		}
		if ctx.Err() != nil {
			return
		}
	}
}
