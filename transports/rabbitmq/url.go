package rabbitmq

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gotidings/tidings/transports"
)

func init() {
	transports.Register("amqp", openURL)
	transports.Register("amqps", openURL)
}

// openURL opens an amqp or amqps URL, with fields of Config as its parameters.
func openURL(ctx context.Context, u *url.URL) (transports.Transport, error) {
	cfg, err := parseURL(u)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", transports.ErrInvalidURL, err)
	}
	cfg.Logger = transports.OpenLogger(ctx)
	t, err := Open(ctx, cfg)
	if err != nil { // without this, a nil *Transport would be a Transport that is not nil
		return nil, err
	}
	return t, nil
}

// parseURL reads the parameters of a URL into a configuration, in whose URLs they
// no longer are.
func parseURL(u *url.URL) (Config, error) {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Config{}, errors.New("its parameters are malformed") // err quotes them
	}
	var cfg Config
	var files tlsFiles
	var faults []error
	text := func(field *string) func(string) error {
		return func(v string) error { *field = v; return nil }
	}
	number := func(field *int) func(string) error {
		return func(v string) (err error) {
			if *field, err = strconv.Atoi(v); err != nil || *field < 1 {
				return errors.New("it takes a whole number of at least 1")
			}
			return nil
		}
	}
	duration := func(field *time.Duration) func(string) error {
		return func(v string) (err error) {
			if *field, err = time.ParseDuration(v); err != nil || *field <= 0 {
				return errors.New("it takes a duration such as 10s")
			}
			return nil
		}
	}
	parameters := map[string]func(string) error{
		"exchange":          text(&cfg.Exchange),
		"queue_type":        text((*string)(&cfg.QueueType)),
		"topology":          text((*string)(&cfg.Topology)),
		"unroutable":        text((*string)(&cfg.Unroutable)),
		"name":              text(&cfg.Name),
		"max_message_bytes": number(&cfg.MaxMessageBytes),
		"publish_channels":  number(&cfg.PublishChannels),
		"confirm_window":    number(&cfg.ConfirmWindow),
		"connect_timeout":   duration(&cfg.ConnectTimeout),
		"heartbeat":         duration(&cfg.Heartbeat),
		"auth_mechanism": func(v string) error {
			cfg.External = v == "external"
			if v != "plain" && v != "external" {
				return errors.New("it takes plain or external")
			}
			return nil
		},
		"cacertfile":             text(&files.ca),
		"certfile":               text(&files.cert),
		"keyfile":                text(&files.key),
		"server_name_indication": text(&files.serverName),
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		set, ok := parameters[name]
		if !ok {
			known := strings.Join(slices.Sorted(maps.Keys(parameters)), ", ")
			faults = append(faults, fmt.Errorf("unknown parameter %q; known are %s", name, known))
		} else if err := set(query.Get(name)); err != nil {
			faults = append(faults, fmt.Errorf("parameter %s is %q: %w", name, query.Get(name), err))
		}
	}
	if files != (tlsFiles{}) {
		if cfg.TLS, err = files.config(); err != nil {
			faults = append(faults, err)
		}
	}
	if u.Fragment != "" || u.Opaque != "" {
		faults = append(faults, errors.New("it is amqp://user:password@host:5672/vhost with optional parameters"))
	}
	if err := errors.Join(faults...); err != nil {
		return Config{}, err
	}
	plain := *u
	plain.RawQuery = ""
	cfg.URLs = splitHosts(plain)
	return cfg, cfg.withDefaults().validate()
}

// splitHosts makes a URL of each host in "host1,host2:5672". A port at the end is that
// of all; net/url allows one port only.
func splitHosts(u url.URL) []string {
	port := u.Port()
	var urls []string
	for host := range strings.SplitSeq(u.Hostname(), ",") {
		one := u
		if one.Host = host; port != "" || strings.Contains(host, ":") {
			one.Host = strings.TrimSuffix(net.JoinHostPort(host, port), ":")
		}
		urls = append(urls, one.String())
	}
	return urls
}

// tlsFiles are the TLS parameters of RabbitMQ's URIs:
// https://www.rabbitmq.com/docs/uri-query-parameters
type tlsFiles struct{ ca, cert, key, serverName string }

func (f tlsFiles) config() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.serverName}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("parameter cacertfile: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("parameter cacertfile: %s has no PEM certificate", f.ca)
		}
	}
	if f.cert != "" || f.key != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("parameters certfile and keyfile: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// node is a broker's address, without credentials.
type node struct {
	host, addr string
	tls        bool
}

// login is what a connection logs in with.
type login struct{ user, password, vhost string }

// parseNodes reads Config.URLs. Its errors quote no part of them.
func parseNodes(urls []string) ([]node, login, error) {
	var nodes []node
	var first login
	var faults []error
	for i, raw := range urls {
		fault := func(problem string) { faults = append(faults, fmt.Errorf("URLs[%d] %s", i, problem)) }
		u, err := url.Parse(raw)
		switch {
		case err != nil:
			fault("is malformed; special characters in user, password and vhost are written as %XX")
			continue
		case u.Scheme != "amqp" && u.Scheme != "amqps":
			fault("has another scheme than amqp or amqps")
			continue
		case u.RawQuery != "" || u.Fragment != "":
			fault("has parameters; set the fields of Config")
			continue
		}
		host, port := u.Hostname(), u.Port()
		if host == "" {
			host = "localhost"
		}
		if port == "" {
			port = map[string]string{"amqp": "5672", "amqps": "5671"}[u.Scheme]
		}
		addr := net.JoinHostPort(host, port)
		nodes = append(nodes, node{host: host, addr: addr, tls: u.Scheme == "amqps"})
		if i == 0 {
			first = loginOf(u)
		}
	}
	return nodes, first, errors.Join(faults...)
}

// loginOf reads user, password and vhost, with the defaults of
// https://www.rabbitmq.com/docs/uri-spec but for the empty vhost: "/" at the end means
// the vhost "/", as with most clients.
func loginOf(u *url.URL) login {
	l := login{user: "guest", password: "guest", vhost: "/"}
	if u.User != nil {
		l.user = u.User.Username()
		l.password, _ = u.User.Password()
	}
	if name := strings.TrimPrefix(u.Path, "/"); name != "" {
		l.vhost = name
	}
	return l
}
