package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/rabbitmq"
)

// publishOptions are the flags of publish.
type publishOptions struct {
	metadata events.Metadata
	data     string
	raw      bool
	file     string
}

func (a *app) publishCommand() *cobra.Command {
	var o publishOptions
	cmd := &cobra.Command{
		Use:   "publish TYPE",
		Short: "Publish an event, or a file of events",
		Long: `Publishes an event of a type, and prints its id once the broker has stored it. The data is
--data, the file of --data @FILE, or standard input for --data -.

With --events FILE, or - for standard input, it publishes events in the JSON format of
CloudEvents 1.0, one a line, in order, and stops at the first that fails; it says at which
line. TYPE and the flags of the event are not given then.

On RabbitMQ an event is stored in the queues of the subscriptions that take its type. One that
no subscription takes is dropped, and the status is 1; of a file, the others are published.`,
		Example: `  tidings publish order.created --source shop --key customer-42 --data '{"orderId":1}'
  tidings publish --events events.jsonl`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.file != "" && (len(args) > 0 || cmd.Flags().Changed("data")):
				return usagef("--events brings types and data along; give no TYPE and no --data")
			case o.file == "" && len(args) == 0:
				return usagef("publish needs the TYPE of the event, such as order.created, or --events FILE")
			case o.file != "":
				return a.publishFile(cmd.Context(), &o)
			}
			o.metadata.Type = args[0]
			return a.publishOne(cmd.Context(), &o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.data, "data", "{}", "the data: text, @FILE, or - for standard input")
	f.BoolVar(&o.raw, "raw", false, "take data of --content-type application/json that is not JSON")
	f.StringVar(&o.file, "events", "", "`FILE` of CloudEvents in JSON, one a line; - for standard input")
	f.StringVar(&o.metadata.ID, "id", "", "id of the event; a new UUID when not given")
	f.StringVar(&o.metadata.Source, "source", "tidings", "CloudEvents source")
	f.StringVar(&o.metadata.Subject, "subject", "", "CloudEvents subject")
	f.StringVar(&o.metadata.PartitionKey, "key", "", "partition key: events with one key are handled in order by ordered subscriptions")
	f.StringVar(&o.metadata.CorrelationID, "correlation-id", "", "correlation id; that of the event when not given")
	f.StringVar(&o.metadata.DataContentType, "content-type", "application/json", "media type of the data")
	return cmd
}

// published is what publish prints of an event.
type published struct {
	ID     string `json:"id"`
	Source string `json:"source"`
	Type   string `json:"type"`
}

func (a *app) publishOne(ctx context.Context, o *publishOptions) error {
	data, err := a.content(o.data)
	if err != nil {
		return err
	}
	md := o.metadata
	if md.DataContentType == "application/json" && !o.raw && !json.Valid(data) {
		return usagef("--data is not JSON; mend it, or give its --content-type, or --raw")
	}
	if md.ID == "" {
		md.ID = events.NewID()
	}
	if md.CorrelationID == "" {
		md.CorrelationID = md.ID
	}
	md.Time = time.Now()
	if err := md.Validate(); err != nil {
		return &usageError{err}
	}
	return a.with(ctx, use, func(t transports.Transport) error {
		if err := a.send(ctx, t, md, data); err != nil {
			return err
		}
		return a.printPublished([]published{{md.ID, md.Source, md.Type}})
	})
}

// content is what --data says, or leads to.
func (a *app) content(data string) ([]byte, error) {
	var file string
	switch {
	case data == "-":
		return io.ReadAll(a.in)
	case len(data) > 1 && data[0] == '@':
		file = data[1:]
	default:
		return []byte(data), nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, &usageError{fmt.Errorf("--data: %w", err)}
	}
	return content, nil
}

// send publishes an event as it stands.
func (a *app) send(ctx context.Context, t transports.Transport, md events.Metadata, data []byte) error {
	b, err := bus.New(t, bus.Config{Source: md.Source})
	if err != nil {
		return err
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	return b.PublishRaw(ctx, bus.Raw{Metadata: md, Data: data})
}

// maxLine bounds a line of --events, in bytes: the largest message, in base64, and more.
const maxLine = 2 * transports.DefaultMaxMessageBytes

func (a *app) publishFile(ctx context.Context, o *publishOptions) (err error) {
	in := a.in
	if o.file != "-" {
		f, err := os.Open(o.file)
		if err != nil {
			return &usageError{fmt.Errorf("--events: %w", err)}
		}
		defer f.Close() //nolint:errcheck // it was read
		in = f
	}
	return a.with(ctx, use, func(t transports.Transport) error {
		list := []published{}
		var dropped []string // types that nobody takes
		lines := 0
		err := eachLine(in, func(line []byte) error {
			lines++
			md, data, err := events.ParseJSON(line)
			if err == nil {
				err = a.send(ctx, t, md, data)
			}
			switch {
			case errors.Is(err, rabbitmq.ErrUnroutable):
				dropped = append(dropped, md.Type)
				return nil
			case err == nil:
				list = append(list, published{md.ID, md.Source, md.Type})
			}
			return err
		})
		switch {
		case err != nil:
			err = fmt.Errorf("--events: %w (%s published before)", err, plural(len(list), "event"))
		case len(dropped) > 0:
			n := len(dropped)
			slices.Sort(dropped)
			err = fmt.Errorf("--events: %w: the broker has dropped %s of the types %s", rabbitmq.ErrUnroutable, plural(n, "event"), strings.Join(slices.Compact(dropped), ", "))
		case lines == 0:
			err = fmt.Errorf("--events: there is no event in %s", o.file)
		}
		return errors.Join(a.printPublished(list), err)
	})
}

// eachLine calls fn with each line that is not empty, until its first error, which it
// returns with the line's number.
func eachLine(r io.Reader, fn func([]byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	n := 0
	for lines.Scan() {
		n++
		if line := bytes.TrimSpace(lines.Bytes()); len(line) > 0 {
			if err := fn(line); err != nil {
				return fmt.Errorf("line %d: %w", n, err)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	return nil
}

func (a *app) printPublished(list []published) error {
	if a.output == "json" {
		return a.printJSON(list)
	}
	for _, p := range list {
		fmt.Fprintln(a.out, p.ID)
	}
	return nil
}
