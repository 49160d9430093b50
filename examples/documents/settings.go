package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gotidings/tidings/examples/documents/internal/database"
	"github.com/gotidings/tidings/examples/documents/internal/discovery"

	// What -transport can open: a scheme each.
	_ "github.com/gotidings/tidings/transports/memory"
	_ "github.com/gotidings/tidings/transports/rabbitmq"
)

var schemes = []string{"amqp", "amqps", "memory"}

// settings are the flags, with their defaults.
var settings = []struct {
	name, value, usage string
	set                func(c *config, value string) error
}{
	{"role", "all", "`ROLES` of this process, with commas between: api, worker, services, or all", func(c *config, v string) error {
		if v == "all" {
			c.roles = allRoles
			return nil
		}
		for role := range strings.SplitSeq(v, ",") {
			if !slices.Contains(allRoles, role) {
				return fmt.Errorf("%q is no role; it takes api, worker, services, or all", role)
			}
			if !c.has(role) {
				c.roles = append(c.roles, role)
			}
		}
		return nil
	}},
	{"name", "", "`NAME` of the system, which its processes share and no other on the broker has (default documents; with -once one of its own)", func(c *config, v string) error {
		if len(v) > 60 || strings.ContainsFunc(v, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }) {
			return errors.New("it takes up to 60 lower-case letters, digits and -")
		}
		c.name = v
		return nil
	}},
	{"addr", "127.0.0.1:8080", "`ADDRESS` of the REST API and the live page; with -once a free port", address(func(c *config) *string { return &c.addr })},
	{"grpc-addr", "127.0.0.1:9090", "`ADDRESS` of the gRPC service; with -once a free port", address(func(c *config) *string { return &c.grpcAddr })},
	{"services-addr", "127.0.0.1:8091", "`ADDRESS` of the role services in a process of its own", address(func(c *config) *string { return &c.servicesAddr })},
	{"db", "", "`URL` of the database: postgres:// or sqlite:FILE (default a temporary one)", func(c *config, v string) error {
		c.db = v
		if v == "" {
			return nil
		}
		_, _, _, err := database.Source(v)
		return err
	}},
	{"transport", "", "`URL` of the broker: amqp:// or memory:// (default memory:// without -db; with it, the database is the broker)", func(c *config, v string) error {
		c.transport = v
		u, err := url.Parse(v)
		if err != nil {
			return errors.New("it is not a URL") // the error of url.Parse quotes the password
		}
		if v != "" && !slices.Contains(schemes, u.Scheme) {
			return fmt.Errorf("its scheme is %q; it takes one of %v", u.Scheme, schemes)
		}
		return nil
	}},
	{"analysis", "", "`WHERE` instances of the analysis service are: static:HOST:PORT,…, env:VARIABLE, dns:HOST:PORT or srv:NAME (default in this process)", func(c *config, v string) error {
		c.analysis = v
		return instances(v)
	}},
	{"payments", "", "`WHERE` instances of the payment service are, in the same form (default in this process)", func(c *config, v string) error {
		c.payments = v
		return instances(v)
	}},
	{"key", "", "`SECRET` with which workers sign their requests to the services, 32 characters or more (default a new one in a process of all roles)", func(c *config, v string) error {
		c.key = v
		if v != "" && len(v) < 32 {
			return errors.New("it takes 32 characters or more")
		}
		return nil
	}},
	{"tokens", "", "`TOKEN=USER,…` of the users of the API (default a new one of the user demo)", func(c *config, v string) (err error) {
		c.tokens, err = tokens(v)
		return err
	}},
	{"input", "", "`FOLDER` whose *.txt files are processed at the start (default a sample of 40, in a process of all roles)", func(c *config, v string) error {
		c.input = v
		return nil
	}},
	{"traces", "", "`FILE` to which spans are added, a line of JSON each", func(c *config, v string) error {
		c.traces = v
		return nil
	}},
	{"once", "false", "process the input, count what has become of it, and end", func(c *config, v string) (err error) {
		c.once, err = strconv.ParseBool(v)
		return err
	}},
	{"patience", "13s", "`TIME` that -once waits for the documents before it calls the rest lost; whatever is stuck, it ends within 17s more", duration(func(c *config) *time.Duration { return &c.patience })},
	{"faults", "0.05", "`PART` of the calls of the services that fails, 0 to 1", func(c *config, v string) (err error) {
		if c.faults, err = strconv.ParseFloat(v, 64); err != nil || !(c.faults >= 0 && c.faults <= 1) {
			return errors.New("it takes a number from 0 to 1")
		}
		return nil
	}},
	{"delay", "1s", "`TIME` that a call of the services takes at most; with -once 50ms", duration(func(c *config) *time.Duration { return &c.delay })},
	{"retry-delay", "2s", "`TIME` before the first repetition of a call, which doubles; with -once 50ms", duration(func(c *config) *time.Duration { return &c.retryDelay })},
	{"try-timeout", "10s", "`TIME` that a try of a call may take; all of its tries together may take three times as long", duration(func(c *config) *time.Duration { return &c.tryTimeout })},
	{"breaker-delay", "30s", "`TIME` that a service is left alone after five failures; with -once 500ms", duration(func(c *config) *time.Duration { return &c.breakerDelay })},
	{"monitor-interval", "1m", "`TIME` between two checks of each dependency", duration(func(c *config) *time.Duration { return &c.monitorInterval })},
	{"shutdown-timeout", "20s", "`TIME` that requests, documents and handlers together have to finish; with -once 1s", duration(func(c *config) *time.Duration { return &c.shutdownTimeout })},
}

func address(field func(*config) *string) func(*config, string) error {
	return func(c *config, v string) error {
		*field(c) = v
		if _, _, err := net.SplitHostPort(v); err != nil {
			return errors.New("it takes a host and a port, as in 127.0.0.1:8080")
		}
		return nil
	}
}

func duration(field func(*config) *time.Duration) func(*config, string) error {
	return func(c *config, v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 {
			return errors.New("it takes a time such as 30s")
		}
		*field(c) = d
		return nil
	}
}

// instances checks where instances of a service are.
func instances(v string) error {
	if v == "" {
		return nil
	}
	_, err := discovery.Parse(v)
	return err
}

// tokens reads pairs of a token and its user. Its errors quote none.
func tokens(v string) (map[string]string, error) {
	if v == "" {
		return nil, nil
	}
	users := make(map[string]string)
	for pair := range strings.SplitSeq(v, ",") {
		at := max(strings.LastIndex(pair, "="), 0) // a token may have others
		token, user := pair[:at], strings.TrimPrefix(pair[at:], "=")
		if len(token) < 8 || user == "" || strings.ContainsAny(pair, " \t\n") {
			return nil, errors.New("it takes pairs such as s3cr3t-t0ken=ada, with tokens of 8 characters or more")
		}
		users[token] = user
	}
	return users, nil
}
