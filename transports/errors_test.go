package transports_test

import (
	"errors"
	"io"
	"testing"

	"github.com/gotidings/tidings/transports"
)

func TestTooLargeSaysTheSizes(t *testing.T) {
	t.Parallel()
	err := transports.TooLarge(17, 16)
	if !errors.Is(err, transports.ErrTooLarge) {
		t.Errorf("%v is not ErrTooLarge", err)
	}
	if got, want := err.Error(), "message is too large: payload of 17 bytes, limit 16"; got != want {
		t.Errorf("got %q; want %q", got, want)
	}
}

func TestPublishErrorShowsTheFirstFailures(t *testing.T) {
	t.Parallel()
	var err error = &transports.PublishError{Failures: []transports.PublishFailure{
		{Index: 1, Err: transports.ErrClosed},
		{Index: 3, Err: transports.ErrTooLarge},
		{Index: 4, Err: transports.ErrClosed},
		{Index: 9, Err: io.EOF},
	}}
	want := "4 messages not published; 1: transport is closed; 3: message is too large; 4: transport is closed; …"
	if got := err.Error(); got != want {
		t.Errorf("got %q; want %q", got, want)
	}
	for _, target := range []error{transports.ErrClosed, transports.ErrTooLarge, io.EOF} {
		if !errors.Is(err, target) {
			t.Errorf("%v is not found in it", target)
		}
	}
	if errors.Is(err, transports.ErrUnsupported) {
		t.Error("finds an error that is not in it")
	}
	if failed, ok := errors.AsType[*transports.PublishError](err); !ok || failed.Failures[3].Index != 9 {
		t.Error("can't be taken apart")
	}
}

func TestBatchErrorIsThatOfAMessageOnItsOwn(t *testing.T) {
	t.Parallel()
	one := []transports.PublishFailure{{Index: 0, Err: io.EOF}}
	if err := transports.BatchError(3, nil); err != nil {
		t.Errorf("nothing failed: %v", err)
	}
	if err := transports.BatchError(1, one); err != io.EOF { //nolint:errorlint // itself, not wrapped
		t.Errorf("a message on its own: %v, want its error itself", err)
	}
	if partial, ok := errors.AsType[*transports.PublishError](transports.BatchError(2, one)); !ok || len(partial.Failures) != 1 {
		t.Errorf("one of two: %v, want a PublishError with it", transports.BatchError(2, one))
	}
}
