// Quickstart runs the library end to end: it publishes events, has the handlers of
// package handlers handle them, and accounts for every one of them.
//
//	go run ./examples/quickstart                      # a sample that it makes itself
//	go run ./examples/quickstart -input events.jsonl  # your events; - reads standard input
//	go run ./examples/quickstart -transport URL       # over another broker
//
// # Input
//
// The input has one event a line, in the JSON format of CloudEvents 1.0. A line that
// is not such an event (not a JSON object, no specversion "1.0", no id, source or
// type, a blank line, an attribute with a value that CloudEvents does not allow, a
// member that is there twice) is reported on standard error as "line N: why" and
// passed over; malformed lines are no failure of the run. Any other line is published
// as it stands, whatever its type and its data. An event that the transport refuses,
// because it is too large for example, is reported in the same way.
//
// Lines are read as they are published: the input can be a pipe that never ends. A
// line may have 128 MiB. When the queues are full the reading waits. What grows with
// the input is the account of the events, a kilobyte or so for each.
//
// The sample is the same in every run. Some of its events fail for now and are tried
// again, some fail until their cause is mended, some can't be decoded, some are
// published twice. Nothing fails on purpose when -input is given.
//
// # Output
//
// Progress goes to standard output, as a bar on a terminal and as lines elsewhere,
// and after it a table of the subscriptions. In it, events/s is what a subscription
// handled per second between the first publish and its last event, waits for retries
// included; p50 and p99 are times from before the publish to the handler's return, for
// half of the events and for 99 of 100. Then what was poisoned by a cause that is
// mended by now is redriven. The last line is
//
//	malformed=N published=N handled=N retried=N deduplicated=N poisoned=N unhandled=N lost=N
//
// where
//
//   - malformed counts lines that are no CloudEvent,
//   - published counts events that the transport has confirmed,
//   - handled counts deliveries whose handler returned nil, by the handlers' own
//     ledger, those that succeeded after a redrive included,
//   - retried counts deliveries that took more than one attempt, in place or after a
//     delay, whatever became of them; each counts once,
//   - deduplicated counts deliveries of events that had been handled before,
//   - poisoned counts deliveries that are in a poison queue at the end,
//   - unhandled counts published events that no subscription takes; the audit, which
//     sees every event, does not count,
//   - lost counts events, by source and id, that a subscription takes and has neither
//     handled nor poisoned.
//
// An event of a type that two subscriptions take is two deliveries, so handled +
// deduplicated + poisoned is the number of deliveries. The audit has a row in the
// table and no part in the last line. Neither have events of others on the same
// broker: only source and id that this run has published are counted.
//
// The exit status is 0; 1 when an event was lost or the run could not be finished; 2
// for a usage error. An interrupt ends the reading; what was published is handled and
// accounted for. The subscriptions of the run have names of their own and are deleted
// at its end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit statuses.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	// A terminal or a reader of the report that goes away is an interrupt too: the
	// subscriptions have to be deleted.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	context.AfterFunc(ctx, func() {
		signal.Ignore(syscall.SIGPIPE) // the rest of the report is written to nobody
		stop()                         // a second interrupt ends the program at once
	})
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the program. It returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	o, err := parseOptions(args, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "quickstart: %v (-help shows the flags)\n", err)
		return exitUsage
	}
	in, err := openInput(o.input, stdin)
	if err != nil {
		fmt.Fprintf(stderr, "quickstart: %v\n", err)
		return exitUsage
	}
	defer in.close()
	transport, err := openTransport(ctx, o.transport)
	if err != nil {
		fmt.Fprintf(stderr, "quickstart: %v\n", err)
		if _, ok := errors.AsType[*usageError](err); ok {
			return exitUsage
		}
		return exitFailed
	}
	s := newSession(transport, in, newConsole(stdout, stderr))
	if err := s.run(ctx); err != nil {
		fmt.Fprintf(stderr, "quickstart: %v\n", err)
		return exitFailed
	}
	return 0
}

// options are the flags.
type options struct {
	input     string // file name, "-" for standard input, "" for the sample
	transport string // URL
}

func parseOptions(args []string, stdout io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are told by the caller, once
	flags.StringVar(&o.input, "input", "", "`FILE` of CloudEvents in JSON, one a line; - is standard input (default: a sample of its own)")
	flags.StringVar(&o.transport, "transport", "memory://", "`URL` of the transport")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(stdout, "Usage: quickstart [-input FILE] [-transport URL]")
			flags.SetOutput(stdout)
			flags.PrintDefaults()
		}
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q; a file is given by -input", flags.Arg(0))
	}
	var empty error
	flags.Visit(func(f *flag.Flag) { // an unset shell variable must not run the sample
		if f.Value.String() == "" {
			empty = fmt.Errorf("-%s is empty", f.Name)
		}
	})
	return o, empty
}
