// Command bench compares the library with its peers: the same events through each,
// side by side, in one run.
//
//	go run ./bench                        # from the repository's root
//	go run ./bench -rabbitmq amqp://guest:guest@127.0.0.1:5672/
//	go run ./bench -run memory/publishers=1 -rounds 9 -out new.txt
//	benchstat -col /peer new.txt
//
// A case is measured once a round, all cases before the next round begins, in an
// order that changes from round to round: what else the machine does meanwhile
// falls on all of them. Each measurement has a process of its own, so that nothing
// that one case leaves behind, goroutines, timers, a grown heap, slows down or speeds
// up the next. Every event is checked: one that is lost, doubled or decoded wrongly
// fails the run.
//
// Rates depend on the machine and the hour. What can be compared between machines
// is the ratio in the last columns of the table, and allocations. On a machine that
// is busy otherwise, even the ratio says little of who would win with the processors
// for itself; the processor time of an event then says more.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"regexp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	var usage usageError
	switch {
	case errors.As(err, &usage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// brokerVariable of the environment is the default of -rabbitmq. Children have the URL
// from it as well: everybody on the machine can read their command line.
const brokerVariable = "RABBITMQ_URL"

// usageError is a fault of the command line. It was told already.
type usageError struct{ error }

type options struct {
	pattern *regexp.Regexp // of the names of cases
	broker  string         // URL of a RabbitMQ server; empty for none
	rounds  int
	events  int    // per case and round
	out     string // file for benchstat; empty for none
	profile string // directory for profiles; empty for none
	list    bool

	targets    bool   // compare with the targets, in place of all cases
	results    string // file that the targets' table is added to; empty for none
	soak       string // name of a soak; empty for none
	soakEvents int    // 0: as many as it has
	idle       string // transport of an idle service; empty for none
	once       string // name of the case to measure in this process; empty for all, in children
}

func parse(args []string, stderr io.Writer) (options, error) {
	o := options{pattern: regexp.MustCompile("")}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Func("run", "measure the cases whose names match this `regexp` (default all)", func(s string) (err error) {
		o.pattern, err = regexp.Compile(s)
		return err
	})
	flags.StringVar(&o.broker, "rabbitmq", os.Getenv(brokerVariable), "also measure the cases that need RabbitMQ, at the server of this `URL` (default $"+brokerVariable+")")
	flags.IntVar(&o.rounds, "rounds", 7, "how often to measure each case")
	flags.IntVar(&o.events, "events", 100_000, "events per case and round, at most; slow peers have fewer")
	flags.StringVar(&o.out, "out", "", "also write every round to this `file`, for benchstat")
	flags.StringVar(&o.profile, "profile", "", "write CPU and allocation profiles of each case into this `directory`; slows down")
	flags.BoolVar(&o.list, "list", false, "list the cases and stop")
	flags.BoolVar(&o.targets, "targets", false, "measure what has a target and say whether it is met, in 3 rounds unless -rounds says otherwise; needs RabbitMQ and PostgreSQL")
	flags.StringVar(&o.results, "results", "", "add what -targets has measured to this Markdown `file`, above what it has already")
	flags.StringVar(&o.soak, "soak", "", "send millions of events through one bus on a `transport`, memory, rabbitmq, postgres or all, and show whether it becomes slower or larger")
	flags.IntVar(&o.soakEvents, "soak-events", 0, "events of a soak (default 5,000,000 in memory, 1,000,000 elsewhere)")
	flags.StringVar(&o.idle, "idle", "", "measure a service with 50 subscriptions and no events on a `transport`, memory, rabbitmq, postgres or all")
	flags.StringVar(&o.once, "once", "", "measure one round of one `case` in this process and print it as JSON")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, usageError{err}
	}
	set := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) { set[f.Name] = true })
	if o.targets && !set["rounds"] {
		o.rounds = 3
	}
	if o.targets && !set["events"] {
		o.events = math.MaxInt // each target has its own
	}
	var err error
	switch {
	case o.targets && (o.out != "" || o.list || o.once != ""):
		err = errors.New("-targets goes with -run, -rounds, -events, -rabbitmq, -results and -profile")
	case o.results != "" && !o.targets:
		err = errors.New("-results goes with -targets")
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.rounds < 1:
		err = fmt.Errorf("-rounds is %d; it takes at least 1", o.rounds)
	case o.events < 1:
		err = fmt.Errorf("-events is %d; it takes at least 1", o.events)
	default:
		return o, nil
	}
	fmt.Fprintln(stderr, "bench:", err)
	return o, usageError{err}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case o.once != "":
		return runOnce(ctx, o, stdout)
	case o.soak != "":
		return runSoaks(ctx, o, stdout)
	case o.idle != "":
		return runIdle(ctx, o, stdout)
	case o.targets:
		return compareTargets(ctx, o, stdout, stderr)
	}
	var chosen []benchCase
	left := 0
	for _, c := range allCases(o.broker) {
		switch {
		case !o.pattern.MatchString(c.name()):
		case c.needsBroker && o.broker == "" && !o.list:
			left++
		default:
			chosen = append(chosen, c)
		}
	}
	if left > 0 {
		fmt.Fprintf(stderr, "left out: %d cases that need a RabbitMQ server, -rabbitmq URL\n", left)
	}
	if o.list {
		for _, c := range chosen {
			fmt.Fprintln(stdout, c.name())
		}
		return nil
	}
	if len(chosen) == 0 {
		return fmt.Errorf("no case is left of -run %q; -list shows them", o.pattern)
	}
	return compare(ctx, o, chosen, stdout, stderr)
}

// runOnce is what a child process does.
func runOnce(ctx context.Context, o options, stdout io.Writer) error {
	c, ok := casesByName(o.broker)[o.once]
	if !ok {
		return fmt.Errorf("there is no case %q; -list shows them", o.once)
	}
	s, err := measureWarm(ctx, c, c.events(o.events), o.profile)
	if err != nil {
		return fmt.Errorf("%s: %w", c.name(), err)
	}
	return json.NewEncoder(stdout).Encode(s)
}

// compare measures the cases in rounds and reports.
func compare(ctx context.Context, o options, cases []benchCase, stdout, stderr io.Writer) (err error) {
	m := thisMachine()
	out := io.Discard
	if o.out != "" {
		file, err := os.Create(o.out)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		out = file
	}
	m.writeBenchHeader(out)

	results, err := inRounds(cases, o.rounds, func(c benchCase, round int) (sample, error) {
		fmt.Fprintf(stderr, "round %d of %d: %s\n", round+1, o.rounds, c.name())
		s, err := measureInChild(ctx, c, o)
		if err == nil {
			writeBenchLine(out, c, s)
		}
		return s, err
	})
	if err != nil {
		return err
	}
	m.writeHeader(stdout, fmt.Sprintf("%d rounds of up to %d events", o.rounds, o.events))
	writeTable(stdout, results)
	writeNotes(stdout, results)
	return nil
}
