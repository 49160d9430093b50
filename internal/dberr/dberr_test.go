package dberr_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/gotidings/tidings/internal/dberr"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type stateError string

func (e stateError) Error() string    { return "driver says " + string(e) }
func (e stateError) SQLState() string { return string(e) }

type numberError struct{ Number uint16 }

func (e *numberError) Error() string { return fmt.Sprint("Error ", e.Number) }

type codeError int

func (e codeError) Error() string { return "sqlite" }
func (e codeError) Code() int     { return int(e) }

func TestErrorsOfDrivers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err            error
		conflict, away bool
	}{
		{stateError("40001"), true, true},
		{stateError("40P01"), true, true},
		{stateError("55P03"), true, true},
		{stateError("57P01"), false, true},
		{stateError("08006"), false, true},
		{stateError("53300"), false, true},
		{stateError("23505"), false, false},
		{stateError("42P01"), false, false},
		{&numberError{1213}, true, true},
		{&numberError{1205}, true, true},
		{&numberError{1020}, true, true},
		{&numberError{2006}, false, true},
		{&numberError{1062}, false, false},
		{codeError(5), true, true},
		{codeError(5 | 2<<8), true, true},
		{codeError(19), false, false},
		{io.ErrUnexpectedEOF, false, true},
		{errors.New("invalid connection"), false, true},
		{context.Canceled, false, false},
		{errors.New("something else"), false, false},
	} {
		for _, err := range []error{c.err, fmt.Errorf("wrapped: %w", c.err), errors.Join(errors.New("first"), c.err)} {
			if _, joined := err.(interface{ Unwrap() []error }); joined && c.err.Error() == "invalid connection" {
				continue // it has no type, so it can't be found in others
			}
			if strings.HasPrefix(err.Error(), "wrapped") && c.err.Error() == "invalid connection" {
				continue
			}
			if dberr.Conflict(err) != c.conflict || dberr.Away(err) != c.away {
				t.Errorf("%T %v: conflict %t, away %t; want %t, %t", c.err, err, dberr.Conflict(err), dberr.Away(err), c.conflict, c.away)
			}
		}
	}
}

// Conflicts are retried for a bounded time, and nothing else is.
func TestRetry(t *testing.T) {
	t.Parallel()
	conflict := stateError("40001")
	for name, c := range map[string]struct {
		conflicts int // before last
		last      error
		want      error
		calls     int
	}{
		"at once":       {0, nil, nil, 1},
		"another error": {0, io.EOF, io.EOF, 1},
		"twice":         {2, nil, nil, 3},
		"then another":  {2, io.EOF, io.EOF, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				err := dberr.Retry(t.Context(), dberr.Patience, func() error {
					if calls++; calls <= c.conflicts {
						return conflict
					}
					return c.last
				})
				if !errors.Is(err, c.want) || calls != c.calls {
					t.Errorf("%v after %d calls; want %v after %d", err, calls, c.want, c.calls)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		err := dberr.Retry(t.Context(), dberr.Patience, func() error { return conflict })
		if d := time.Since(began); !errors.Is(err, conflict) || d < 4*time.Second || d > 6*time.Second {
			t.Errorf("%v after %s; want the conflict after 5 s", err, d)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := dberr.Retry(ctx, dberr.Patience, func() error { return conflict }); !errors.Is(err, conflict) {
		t.Errorf("after the end of the context: %v; want the conflict", err)
	}
}
