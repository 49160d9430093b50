package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/gotidings/tidings/outbox"
)

// config is what the shop is told by flags and environment. Every flag has a variable of
// the environment, SHOP_ and its name in capitals; the flag wins.
type config struct {
	roles           []string
	name            string
	addr            string
	db              string // URL
	transport       string // URL; "" is the log of the database
	load            int    // orders; 0 is no load
	mailFailures    float64
	vipAfter        int
	outboxAge       time.Duration
	shutdownTimeout time.Duration

	relayFrom outbox.Start // where the relay begins that has never run
}

// Roles of a process.
const (
	roleAPI    = "api"
	roleWorker = "worker"
	roleRelay  = "relay"
)

func (c *config) has(role string) bool { return slices.Contains(c.roles, role) }

// parseConfig reads the settings: the defaults, then the environment, then the flags. The
// error joins all faults.
func parseConfig(args []string, getenv func(string) string, stdout io.Writer) (config, error) {
	values, given := make(map[string]string), make(map[string]string) // given: by what, for errors
	flags := flag.NewFlagSet("shop", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are told by the caller, once
	for _, s := range settings {
		variable := "SHOP_" + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
		values[s.name], given[s.name] = s.value, "-"+s.name
		if v := getenv(variable); v != "" {
			values[s.name], given[s.name] = v, variable
		}
		usage := s.usage
		if s.value != "" {
			usage += " (default " + s.value + ")"
		}
		flags.Func(s.name, usage, func(v string) error {
			values[s.name], given[s.name] = v, "-"+s.name
			return nil
		})
	}
	var c config
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(stdout, "Usage: shop [flags]   (every flag can be given as SHOP_NAME in the environment too)")
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
	if c.load == 0 {
		c.name, c.db = cmp.Or(c.name, "shop"), cmp.Or(c.db, "sqlite:shop.db")
	}
	return c, errors.Join(faults...)
}

// conflicts are faults of settings that do not fit together.
func (c *config) conflicts() (faults []error) {
	whole := c.has(roleAPI) && c.has(roleWorker) && c.has(roleRelay)
	if strings.HasPrefix(c.transport, "memory:") && !whole {
		faults = append(faults, errors.New("-transport memory:// is in one process: it goes with -role all only"))
	}
	if c.transport == "" && c.has(roleRelay) && !whole {
		faults = append(faults, errors.New("-role relay needs a -transport to relay to; without one, workers read the database"))
	}
	if c.load > 0 && !c.has(roleAPI) {
		faults = append(faults, errors.New("-load needs the role api, which takes the orders"))
	}
	return faults
}
