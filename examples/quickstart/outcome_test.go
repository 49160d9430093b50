package main

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gotidings/tidings/bus"
)

func TestLedgerWait(t *testing.T) {
	t.Parallel()
	const patience = time.Minute
	tests := []struct {
		name string
		with func(t *testing.T, b book, cancel context.CancelCauseFunc)
		want error         // nil, a cause, or a *stalledError
		took time.Duration // at most
	}{
		{"nothing was published", func(*testing.T, book, context.CancelCauseFunc) {}, nil, 0},
		{"all is at an end", func(_ *testing.T, b book, _ context.CancelCauseFunc) {
			b.publish("1", "z")
			b.handle("audit", "1")
		}, nil, 0},
		{"it ends later", func(_ *testing.T, b book, _ context.CancelCauseFunc) {
			b.publish("1", "z")
			time.AfterFunc(59*time.Second, func() { b.handle("audit", "1") })
		}, nil, 59 * time.Second},
		{"it moves slowly", func(_ *testing.T, b book, _ context.CancelCauseFunc) {
			for i := range 10 {
				b.publish(fmt.Sprint(i), "z")
				time.AfterFunc(time.Duration(i+1)*50*time.Second, func() { b.handle("audit", fmt.Sprint(i)) })
			}
		}, nil, 500 * time.Second},
		{"a retry is a movement", func(_ *testing.T, b book, _ context.CancelCauseFunc) {
			b.publish("1", "y")
			b.handle("audit", "1")
			for i := range 5 {
				time.AfterFunc(time.Duration(i+1)*50*time.Second, func() { b.report("c", "1", bus.Redelivered, i+1, errors.New("no")) })
			}
			time.AfterFunc(300*time.Second, func() { b.handle("c", "1") })
		}, nil, 300 * time.Second},
		{"it never ends", func(_ *testing.T, b book, _ context.CancelCauseFunc) {
			b.publish("1", "z")
			b.publish("2", "z")
			b.handle("audit", "2")
			b.handle("audit", "2") // one too many is not the other
		}, &stalledError{open: 1, patience: patience}, 2 * patience},
		{"it is given up", func(_ *testing.T, b book, cancel context.CancelCauseFunc) {
			b.publish("1", "z")
			time.AfterFunc(time.Second, func() { cancel(context.Canceled) })
		}, context.Canceled, time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBook(t)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				began := time.Now()
				tt.with(t, b, cancel)
				err := b.wait(ctx, patience)
				if fmt.Sprint(err) != fmt.Sprint(tt.want) {
					t.Errorf("error %v, want %v", err, tt.want)
				}
				if took := time.Since(began); took > tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
			})
		})
	}
}
