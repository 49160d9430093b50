package grpcapi

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/examples/documents/internal/database"
	"github.com/gotidings/tidings/examples/documents/internal/document"
	pb "github.com/gotidings/tidings/examples/documents/internal/grpcapi/documentsv1"
	"github.com/gotidings/tidings/examples/documents/internal/httpauth"
	"github.com/gotidings/tidings/examples/documents/internal/watch"
	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/transports/memory"
)

// Who waits without a deadline gets one of five minutes; a deadline of the caller's is kept.
func TestProcessDeadline(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ callers, want time.Duration }{
		"none":    {0, 5 * time.Minute},
		"shorter": {time.Minute, time.Minute},
		"longer":  {time.Hour, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.ToSlash(filepath.Join(t.TempDir(), "x.db"))
			synctest.Test(t, func(t *testing.T) {
				db, dialect, err := database.Open(t.Context(), "sqlite:"+file, document.Schema...)
				if err != nil {
					t.Fatal(err)
				}
				ob, err := outbox.New(t.Context(), outbox.Config{DB: db, Dialect: dialect, Source: "documents"})
				if err != nil {
					t.Fatal(err)
				}
				broker, err := memory.New(memory.Config{})
				if err != nil {
					t.Fatal(err)
				}
				b, err := bus.New(broker, bus.Config{Source: "documents"})
				if err != nil {
					t.Fatal(err)
				}
				store := document.NewStore(db, ob)
				s := &service{store: store, watcher: watch.New(b, store), log: slog.New(slog.DiscardHandler)}

				ctx := httpauth.WithCaller(t.Context(), "ada")
				if test.callers > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.callers)
					defer cancel()
				}
				began := time.Now()
				_, err = s.ProcessDocument(ctx, &pb.ProcessDocumentRequest{Name: "a.txt"}) // which nobody processes
				if took := time.Since(began); status.Code(err) != codes.DeadlineExceeded || took != test.want {
					t.Errorf("%v after %v, want %v", err, took, test.want)
				}
				if err := errors.Join(broker.Close(), ob.Close(), db.Close()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
