// Package discovery finds the instances of a service, and spreads requests over them.
//
//	static:10.0.0.1:8080,10.0.0.2:8080   these
//	env:ANALYSIS_ADDRESSES               those in an environment variable, in the same form
//	dns:analysis.internal:8080           the addresses of a name (A and AAAA records)
//	srv:_http._tcp.analysis.internal     the targets of SRV records, RFC 2782
//
// [Balancer] is an [http.RoundTripper] for http.Client or package httpclient: it asks again
// every 30 s, keeps the last good answer while there is none, and passes instances over that
// fail. Package grpcdiscovery has the same for gRPC.
package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
)

// ErrNoInstances says that no instance of a service is known.
var ErrNoInstances = errors.New("discovery: no instances")

// Resolver finds the instances of a service.
type Resolver interface {
	// Resolve returns the addresses, host:port, of all instances: at least one, or an
	// error. It may be called concurrently.
	Resolve(ctx context.Context) ([]string, error)
}

// Func is a function as a [Resolver].
type Func func(ctx context.Context) ([]string, error)

// Resolve calls f.
func (f Func) Resolve(ctx context.Context) ([]string, error) { return f(ctx) }

// Lookup is the part of [net.Resolver] that DNS needs.
type Lookup interface {
	LookupHost(ctx context.Context, host string) ([]string, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// Parse makes the resolver that a text describes, in one of the forms above.
func Parse(text string) (Resolver, error) {
	kind, rest, _ := strings.Cut(text, ":")
	switch kind {
	case "static":
		addresses, err := list(rest)
		return Static(addresses...), err
	case "env":
		if rest == "" {
			return nil, errors.New("discovery: env: names no variable")
		}
		return Env(rest), nil
	case "dns":
		host, port, err := net.SplitHostPort(rest)
		if err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("discovery: %q is not dns:host:port", text)
		}
		return DNS(net.DefaultResolver, host, port), nil
	case "srv":
		if rest == "" {
			return nil, errors.New("discovery: srv: has no name")
		}
		return SRV(net.DefaultResolver, rest), nil
	}
	return nil, fmt.Errorf("discovery: %q begins with none of static, env, dns and srv", text)
}

// Static knows the addresses.
func Static(addresses ...string) Resolver {
	return Func(func(context.Context) ([]string, error) { return some(addresses) })
}

// Env reads addresses, separated by commas, from an environment variable.
func Env(name string) Resolver {
	return Func(func(context.Context) ([]string, error) {
		addresses, err := list(os.Getenv(name))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return addresses, nil
	})
}

// DNS looks a name up. All instances have the same port.
func DNS(l Lookup, host, port string) Resolver {
	return Func(func(ctx context.Context) ([]string, error) {
		hosts, err := l.LookupHost(ctx, host)
		if err != nil {
			return nil, err
		}
		addresses := make([]string, len(hosts))
		for i, h := range hosts {
			addresses[i] = net.JoinHostPort(h, port)
		}
		return some(addresses)
	})
}

// SRV looks the SRV records of a name up, "_http._tcp.analysis.internal", and takes those of
// the best priority. Their weights are not used.
func SRV(l Lookup, name string) Resolver {
	return Func(func(ctx context.Context) ([]string, error) {
		_, records, err := l.LookupSRV(ctx, "", "", name)
		if err != nil {
			return nil, err
		}
		var addresses []string
		for _, r := range records { // the best come first
			if r.Priority == records[0].Priority {
				addresses = append(addresses, net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port))))
			}
		}
		return some(addresses)
	})
}

// some returns the addresses in order, each once, and an error when there are none.
func some(addresses []string) ([]string, error) {
	if len(addresses) == 0 {
		return nil, ErrNoInstances
	}
	return slices.Compact(slices.Sorted(slices.Values(addresses))), nil
}

// list reads addresses that are separated by commas.
func list(text string) ([]string, error) {
	var addresses []string
	for address := range strings.SplitSeq(text, ",") {
		address = strings.TrimSpace(address)
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("discovery: %q is not host:port", address)
		}
		addresses = append(addresses, address)
	}
	return some(addresses)
}
