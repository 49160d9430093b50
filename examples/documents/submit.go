package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

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

// demoUser returns the user for whom the input is processed, the first by name, with the
// first token.
func (s *service) demoUser() (token, user string) {
	token = slices.MinFunc(slices.Collect(maps.Keys(s.cfg.tokens)), func(a, b string) int {
		return cmp.Or(strings.Compare(s.cfg.tokens[a], s.cfg.tokens[b]), strings.Compare(a, b))
	})
	return token, s.cfg.tokens[token]
}

// inputID is the id of a file that a user submits: the same whenever it is submitted, so
// that a program which starts again submits nothing twice.
func inputID(user string, f file) string {
	namespace := uuid.MustParse("2ef4cf2a-5e0b-4b39-9d0f-6c8f3f9c6a11") // of nothing else
	return uuid.NewSHA1(namespace, fmt.Appendf(nil, "%q %q %q", user, f.name, f.content)).String()
}

// submitAll submits files, as a user would do it over the REST API.
func (s *service) submitAll(ctx context.Context, files []file) {
	if len(files) == 0 {
		return
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	token, user := s.demoUser()
	c, err := client.New(s.server.url(), token, transport)
	if err != nil {
		s.log.Error("the input can't be submitted", "error", err)
		return
	}
	for _, f := range files {
		if _, err := c.Submit(ctx, inputID(user, f), f.name, f.content); err != nil {
			s.log.Error("a file can't be submitted", "name", f.name, "error", err)
		}
		if ctx.Err() != nil {
			return
		}
	}
}
