package main

import (
	"cmp"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/gotidings/tidings/outbox"
)

// config is what the program is told by flags and environment. Every flag has a variable of
// the environment, DOCUMENTS_ and its name in capitals; the flag wins.
type config struct {
	roles           []string
	name            string
	addr            string
	grpcAddr        string
	db              string // URL; "" is a temporary one
	transport       string // URL; "" is the log of the database
	analysis        string // where instances of the analysis service are, see package discovery; "" is in this process
	payments        string
	servicesAddr    string
	key             string            // of the signatures between worker and services
	tokens          map[string]string // users by token
	input           string            // folder; "" is the sample
	traces          string            // file; "" is none
	once            bool
	faults          float64
	delay           time.Duration
	retryDelay      time.Duration
	tryTimeout      time.Duration
	breakerDelay    time.Duration
	patience        time.Duration
	monitorInterval time.Duration
	shutdownTimeout time.Duration

	relayFrom outbox.Start // where the relay begins that has never run
	showToken bool         // it was made for this run
	passing   bool         // nothing of the system is to stay at the broker
}

// Roles of a process.
const (
	roleAPI      = "api"      // REST, gRPC, the live page
	roleWorker   = "worker"   // the queue processor and the handlers of events
	roleServices = "services" // what the worker calls: analysis and payments
)

// demoUser is whose token is made anew when there is none.
const demoUser = "demo"

var allRoles = []string{roleAPI, roleWorker, roleServices}

func (c *config) has(role string) bool { return slices.Contains(c.roles, role) }

func (c *config) whole() bool { return len(c.roles) == len(allRoles) }

// parseConfig reads the settings: the defaults, then the environment, then the flags. The
// error joins all faults.
func parseConfig(args []string, getenv func(string) string, stdout io.Writer) (config, error) {
	values, given := make(map[string]string), make(map[string]string) // given: by what, for errors
	flags := flag.NewFlagSet("documents", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are told by the caller, once
	for _, s := range settings {
		variable := "DOCUMENTS_" + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
		values[s.name], given[s.name] = s.value, "-"+s.name
		if v := getenv(variable); v != "" {
			values[s.name], given[s.name] = v, variable
		}
		usage := s.usage
		if s.value != "" {
			usage += " (default " + s.value + ")"
		}
		take := func(v string) error {
			values[s.name], given[s.name] = v, "-"+s.name
			return nil
		}
		if s.name == "once" {
			flags.BoolFunc(s.name, usage, take)
		} else {
			flags.Func(s.name, usage, take)
		}
	}
	var c config
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(stdout, "Usage: documents [flags]   (every flag can be given as DOCUMENTS_NAME in the environment too)")
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		return c, err
	} else if err != nil {
		return c, err
	}
	var faults []error
	if flags.NArg() > 0 {
		faults = append(faults, fmt.Errorf("unexpected argument %q", flags.Arg(0)))
	}
	for _, s := range settings {
		if err := s.set(&c, values[s.name]); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", given[s.name], err))
		}
	}
	faults = append(faults, c.conflicts()...)
	c.fill()
	return c, errors.Join(faults...)
}

// conflicts are faults of settings that do not fit together.
func (c *config) conflicts() (faults []error) {
	fault := func(text string) { faults = append(faults, errors.New(text)) }
	memory := strings.HasPrefix(c.transport, "memory:")
	if memory && c.db != "" {
		fault("-transport memory:// forgets at the end what a -db still has to do: leave -transport away, and the database is the broker")
	}
	if !c.whole() && c.db == "" && (c.has(roleAPI) || c.has(roleWorker)) {
		fault("-db is required for a process of some roles: the others need the same database")
	}
	if c.has(roleWorker) && !c.has(roleServices) && (c.analysis == "" || c.payments == "") {
		fault("-analysis and -payments are required for a worker without the role services: where are they?")
	}
	if !c.whole() && c.key == "" && (c.has(roleWorker) || c.has(roleServices)) {
		fault("-key is required for a process of some roles: workers sign with it, and services check")
	}
	if c.has(roleAPI) && !c.whole() && len(c.tokens) == 0 {
		fault("-tokens is required for an api on its own: without it nobody could use it")
	}
	if c.once && !c.whole() {
		fault("-once needs all roles in one process")
	}
	return faults
}

// fill sets what depends on other settings. In one process that keeps nothing, secrets are
// made anew each time.
func (c *config) fill() {
	if c.db == "" && c.transport == "" {
		c.transport = "memory://"
	}
	c.key = cmp.Or(c.key, rand.Text()+rand.Text())
	if c.has(roleAPI) && len(c.tokens) == 0 {
		c.tokens, c.showToken = map[string]string{rand.Text(): demoUser}, true
	}
	if c.once && c.name == "" { // a system that is there for this run only
		c.name, c.relayFrom, c.passing = "once-"+strings.ToLower(rand.Text()[:8]), outbox.FromNow, true
	}
	c.name = cmp.Or(c.name, "documents")
	if c.once { // a free port, and times that suit a test
		c.addr, c.grpcAddr = "127.0.0.1:0", "127.0.0.1:0"
		c.delay, c.retryDelay, c.breakerDelay = min(c.delay, 50*time.Millisecond), 50*time.Millisecond, 500*time.Millisecond
		c.shutdownTimeout = min(c.shutdownTimeout, time.Second)
	}
}
