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

	// What -transport can open: a scheme each.
	_ "github.com/gotidings/tidings/transports/memory"
	_ "github.com/gotidings/tidings/transports/rabbitmq"
	_ "github.com/gotidings/tidings/transports/sql"
)

var schemes = []string{"amqp", "amqps", "memory", "mysql", "postgres", "sqlite"}

// settings are the flags, with their defaults.
var settings = []struct {
	name, value, usage string
	set                func(c *config, value string) error
}{
	{"role", "all", "`ROLES` of this process, with commas between: api, worker, relay, or all", func(c *config, v string) error {
		c.roles = strings.Split(v, ",")
		if v == "all" {
			c.roles = []string{roleAPI, roleWorker, roleRelay}
		}
		for _, role := range c.roles {
			if role != roleAPI && role != roleWorker && role != roleRelay {
				return fmt.Errorf("%q is no role; it takes api, worker, relay, or all", role)
			}
		}
		return nil
	}},
	{"name", "", "`NAME` of the shop, which its processes share and no other shop on the broker has (default shop; with -load one of its own)", func(c *config, v string) error {
		if len(v) > 60 || strings.ContainsFunc(v, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }) {
			return errors.New("it takes up to 60 lower-case letters, digits and -")
		}
		c.name = v
		return nil
	}},
	{"addr", "127.0.0.1:8080", "`ADDRESS` to listen at; -load takes a free port", func(c *config, v string) error {
		if _, _, err := net.SplitHostPort(v); err != nil {
			return errors.New("it takes a host and a port, as in 127.0.0.1:8080")
		}
		c.addr = v
		return nil
	}},
	{"db", "", "`URL` of the database: postgres://, mysql:// or sqlite:FILE (default sqlite:shop.db; with -load a file of its own)", func(c *config, v string) error {
		c.db = v
		if v == "" {
			return nil
		}
		_, _, _, err := dataSource(v)
		return err
	}},
	{"transport", "", "`URL` of the broker: amqp://, memory:// (default: the database is the broker)", func(c *config, v string) error {
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
	{"load", "0", "`N` orders to put through the shop; it then reconciles and ends", func(c *config, v string) (err error) {
		c.load, err = number(v, 0, 1_000_000)
		return err
	}},
	{"mail-failures", "0.1", "`PART` of the calls of the mail provider that fails, 0 to 1", func(c *config, v string) (err error) {
		if c.mailFailures, err = strconv.ParseFloat(v, 64); err != nil || !(c.mailFailures >= 0 && c.mailFailures <= 1) {
			return errors.New("it takes a number from 0 to 1")
		}
		return nil
	}},
	{"vip-after", "5", "`N` orders that make a VIP of a customer", func(c *config, v string) (err error) {
		c.vipAfter, err = number(v, 1, 1_000_000)
		return err
	}},
	{"outbox-age", "1m", "`TIME` that an event may wait in the outbox before the relay is not ready", func(c *config, v string) (err error) {
		c.outboxAge, err = duration(v)
		return err
	}},
	{"shutdown-timeout", "20s", "`TIME` that requests and handlers have to finish", func(c *config, v string) (err error) {
		c.shutdownTimeout, err = duration(v)
		return err
	}},
}

func number(v string, least, most int) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("it takes a whole number from %d to %d", least, most)
	}
	return n, nil
}

func duration(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		return 0, errors.New("it takes a time such as 30s")
	}
	return d, nil
}
