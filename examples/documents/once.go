package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/examples/documents/internal/client"
	"github.com/gotidings/tidings/examples/documents/internal/document"
	"github.com/gotidings/tidings/examples/documents/internal/live"
)

// inFlight is how many documents of a run of -once are under way at a time, which is what the
// client takes.
const inFlight = 32

// tally is what has become of the documents.
type tally struct {
	documents int // submitted
	processed int
	failed    int
	live      int // whose last update has reached a WebSocket
	lost      int // submitted, and neither processed nor failed
}

func (t tally) String() string {
	return fmt.Sprintf("documents=%d processed=%d failed=%d live=%d lost=%d", t.documents, t.processed, t.failed, t.live, t.lost)
}

// runOnce puts the input through a system of its own, as a user would, and tells what has
// become of it. The error says what is wrong.
func runOnce(ctx context.Context, cfg config, tracer trace.TracerProvider, log *slog.Logger, stdout io.Writer) (err error) {
	files, err := readInput(cfg.input)
	if err != nil {
		return err
	}
	s, err := openService(ctx, cfg, tracer, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	var sum tally
	if err = s.start(ctx); err == nil {
		s.tell(stdout)
		sum, err = s.once(ctx, files)
	}
	err = errors.Join(err, s.stop())
	if cfg.passing {
		ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
		defer cancel()
		err = errors.Join(err, s.remove(ctx))
	}
	fmt.Fprintln(stdout, sum)
	return errors.Join(err, sum.verdict())
}

// once submits files and follows each to its end.
func (s *service) once(ctx context.Context, files []file) (sum tally, err error) {
	last, cancelLast := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.patience+time.Second)
	defer cancelLast()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.patience)
	defer cancel()
	token, user := s.demoUser()
	transport := &http.Transport{MaxIdleConnsPerHost: inFlight}
	defer transport.CloseIdleConnections()
	c, err := client.New(s.server.url(), token, transport)
	if err != nil {
		return sum, err
	}
	updates, err := client.Dial(ctx, s.server.url(), token, live.UserGroup(user), &http.Client{Transport: transport})
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, updates.Close()) }()

	var mu sync.Mutex // guards sum and err
	var all sync.WaitGroup
	room := make(chan struct{}, inFlight)
	for _, f := range files {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			one, oneErr := follow(ctx, last, c, updates, f)
			mu.Lock()
			defer mu.Unlock()
			sum.add(one)
			err = errors.Join(err, oneErr)
		})
	}
	all.Wait()
	return sum, err
}

// follow submits a file, and counts what has become of it: until ctx ends what happens, and
// after that, until last ends, how things are then.
func follow(ctx, last context.Context, c *client.Client, updates *client.Live, f file) (sum tally, err error) {
	id := events.NewID()
	if _, err := c.Submit(ctx, id, f.name, f.content); err != nil {
		return sum, fmt.Errorf("%s: %w", f.name, err)
	}
	sum.documents = 1
	group := live.DocumentGroup(id)
	err = updates.Join(ctx, group)
	if err == nil {
		if _, err = updates.Final(ctx, id); err == nil {
			sum.live = 1
			err = updates.Leave(ctx, group)
		}
	}
	d, getErr := c.Get(last, id)
	switch d.Status {
	case document.Processed:
		sum.processed = 1
	case document.Failed:
		sum.failed = 1
	default:
		sum.lost = 1
	}
	if err = errors.Join(err, getErr); err != nil {
		err = fmt.Errorf("%s: %w", f.name, err)
	}
	return sum, err
}

// verdict says what is wrong with the sum.
func (t tally) verdict() error {
	if t.lost > 0 || t.live < t.documents {
		return fmt.Errorf("%d documents were lost, and the last update of %d was not seen", t.lost, t.documents-t.live)
	}
	return nil
}

func (t *tally) add(o tally) {
	t.documents += o.documents
	t.processed += o.processed
	t.failed += o.failed
	t.live += o.live
	t.lost += o.lost
}
