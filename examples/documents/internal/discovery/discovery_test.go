package discovery

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// zone is a DNS server in memory.
type zone struct {
	hosts map[string][]string
	srv   map[string][]*net.SRV
}

var errNoHost = errors.New("no such host")

func (z zone) LookupHost(_ context.Context, host string) ([]string, error) {
	if hosts, ok := z.hosts[host]; ok {
		return hosts, nil
	}
	return nil, errNoHost
}

func (z zone) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	if records, ok := z.srv[service+proto+name]; ok {
		return name, records, nil
	}
	return "", nil, errNoHost
}

func TestResolvers(t *testing.T) {
	t.Setenv("TEST_ADDRESSES", " b:2, a:1 ,a:1")
	z := zone{
		hosts: map[string][]string{"ocr": {"10.0.0.2", "::1", "10.0.0.1"}, "nobody": {}},
		srv: map[string][]*net.SRV{
			"_http._tcp.ocr":    {{Target: "b.", Port: 2, Priority: 1}, {Target: "a.", Port: 1, Priority: 1, Weight: 5}, {Target: "spare.", Port: 3, Priority: 2}},
			"_http._tcp.nobody": {},
		},
	}
	parsed := func(text string) Resolver {
		r, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for name, tt := range map[string]struct {
		resolver Resolver
		want     []string
		err      error
	}{
		"static":        {parsed("static:b:2,a:1"), []string{"a:1", "b:2"}, nil},
		"none":          {Static(), nil, ErrNoInstances},
		"environment":   {parsed("env:TEST_ADDRESSES"), []string{"a:1", "b:2"}, nil},
		"A and AAAA":    {DNS(z, "ocr", "80"), []string{"10.0.0.1:80", "10.0.0.2:80", "[::1]:80"}, nil},
		"no addresses":  {DNS(z, "nobody", "80"), nil, ErrNoInstances},
		"no such host":  {DNS(z, "x", "80"), nil, errNoHost},
		"SRV":           {SRV(z, "_http._tcp.ocr"), []string{"a:1", "b:2"}, nil},
		"no targets":    {SRV(z, "_http._tcp.nobody"), nil, ErrNoInstances},
		"no such SRV":   {SRV(z, "x"), nil, errNoHost},
		"parsed as DNS": {parsed("dns:127.0.0.1:80"), []string{"127.0.0.1:80"}, nil}, // an address needs no server
	} {
		got, err := tt.resolver.Resolve(t.Context())
		if !slices.Equal(got, tt.want) || !errors.Is(err, tt.err) {
			t.Errorf("%s: got %v, %v, want %v, %v", name, got, err, tt.want, tt.err)
		}
	}
	t.Setenv("TEST_ADDRESSES", "a") // is read each time
	if got, err := Env("TEST_ADDRESSES").Resolve(t.Context()); err == nil {
		t.Errorf("an address without a port: got %v", got)
	}
	for _, text := range []string{"", "static:", "static:a", "static::80", "static:a:1,", "env:", "dns:a", "dns::80", "dns:a:", "srv:", "http:a:80"} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
	if _, err := Parse("srv:_http._tcp.ocr"); err != nil {
		t.Error(err)
	}
}
