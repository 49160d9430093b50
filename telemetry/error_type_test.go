package telemetry_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/telemetry"
)

type coded struct{ error }

func (coded) ErrorType() string { return "out_of_stock" }

func TestErrorType(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"plain":              {errors.New("order 17 is odd"), "*errors.errorString"},
		"wrapped":            {fmt.Errorf("open: %w", &fs.PathError{Err: context.DeadlineExceeded}), "context.deadlineExceededError"},
		"verdict":            {bus.Permanent(coded{errors.New("boom")}), "out_of_stock"},
		"verdict of nothing": {bus.Permanent(nil), "*middleware.verdictError"},
		"joined":             {errors.Join(&fs.PathError{}, errors.New("boom")), "*fs.PathError"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := telemetry.ErrorType(tt.err); got != tt.want {
				t.Errorf("it is %s, want %s", got, tt.want)
			}
		})
	}
}
