package arrows

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gotidings/tidings/"

// An importRule limits what the packages that match in, and not except, import
// directly.
//
// Patterns: "a/b" is that package, "a/b/..." that package and all below it, "a/b/*" all
// below it without itself. A leading "./" stands for this module.
type importRule struct {
	in     []string
	except []string
	only   []string // what they may import besides the standard library; nil: anything
	never  []string // what they may not import, the standard library included
	why    string
}

// A linkRule limits what a program links that imports the packages that match in,
// directly or through others.
type linkRule struct {
	in    []string
	never []string
	why   string
}

var (
	watermill = []string{"github.com/ThreeDotsLabs/watermill", "github.com/ThreeDotsLabs/watermill/message"}
	uuid      = "github.com/google/uuid"

	amqp = []string{"github.com/rabbitmq/amqp091-go/...", "github.com/ThreeDotsLabs/watermill-amqp/..."}

	sqlDrivers = []string{
		"github.com/go-sql-driver/mysql/...",
		"github.com/jackc/pgx/...",
		"github.com/lib/pq/...",
		"github.com/mattn/go-sqlite3/...",
		"github.com/ncruces/go-sqlite3/...",
		"modernc.org/sqlite/...",
	}

	// The API, go.opentelemetry.io/otel, is allowed: it does nothing without the SDK.
	otelSDK = []string{"go.opentelemetry.io/otel/sdk/...", "go.opentelemetry.io/otel/exporters/..."}

	// Watermill and google/uuid import database/sql/driver, which is interfaces only;
	// nothing that the memory transport needs imports database/sql itself.
	sqlCode = slices.Concat(sqlDrivers, []string{
		"database/sql", "github.com/ThreeDotsLabs/watermill-sql/...", "./transports/sql/...",
	})
)

// importRules say who imports whom. .golangci.yml has the same for depguard.
var importRules = []importRule{
	{
		in:   []string{"./events/..."},
		only: []string{uuid},
		why:  "services share their events with others, so events drag nothing along",
	},
	{
		in:   []string{"./handlers/..."},
		only: []string{"./events"},
		why:  "handlers are the domain's and know no bus",
	},
	{
		in:   []string{"./transports"},
		only: append([]string{uuid, "./internal/fingerprint"}, watermill...),
		why:  "the seam is in Watermill's terms and knows neither the bus nor an adapter",
	},
	{
		in:   []string{"./transports/memory/..."},
		only: append([]string{uuid, "./transports", "./internal/..."}, watermill...),
		why:  "tests run on it, so it is light",
	},
	{
		in:   []string{"./transports/rabbitmq/..."},
		only: append([]string{"github.com/rabbitmq/amqp091-go", "./events", "./transports", "./internal/..."}, watermill...),
		why:  "an adapter knows the seam and its broker's client",
	},
	{
		in:   []string{"./transports/watermill"}, // not those below, which are modules of their own
		only: []string{"github.com/ThreeDotsLabs/watermill/message", "./transports", "./internal/..."},
		why:  "it adapts any Pub/Sub by Watermill's interfaces alone",
	},
	{
		in:   []string{"./transports/sql"},
		only: append([]string{uuid, "./transports", "./internal/..."}, watermill...),
		why:  "it takes the user's *sql.DB; programs choose drivers",
	},
	{
		in: []string{"./middleware/..."},
		only: []string{
			"github.com/ThreeDotsLabs/watermill/...", "github.com/failsafe-go/failsafe-go/...",
			"./events", "./transports", "./internal/...",
		},
		why: "middleware works on any Watermill router, without the bus",
	},
	{
		in:   []string{"./health/..."},
		only: []string{"./bus", "./transports"},
		why:  "it asks what a service has, by the interfaces of the seam",
	},
	{
		in: []string{"./outbox"},
		only: append([]string{
			"./bus", "./transports", "./transports/sql", "./internal/intx", "./internal/lease",
		}, watermill...),
		why: "it takes the user's *sql.DB and any transport; programs choose drivers and adapters",
	},
	{
		in: []string{"./inbox"},
		only: []string{
			"./bus", "./events", "./middleware", "./transports/sql", "./internal/...",
		},
		why: "it takes the user's *sql.DB; programs choose drivers",
	},
	{
		in: []string{"./eventstore"},
		only: []string{
			"github.com/ThreeDotsLabs/watermill/message", uuid, "./bus", "./events", "./middleware", "./transports", "./transports/sql",
		},
		why: "it reads the log of the SQL transport, and replays to any transport; programs choose drivers",
	},
	{
		in: []string{"./telemetry"},
		only: []string{
			"github.com/ThreeDotsLabs/watermill/message", "./bus", "./events", "./middleware", "./transports",
			"go.opentelemetry.io/otel/...", "go.opentelemetry.io/otel",
		},
		why: "it uses OpenTelemetry's API; programs choose the SDK and exporters",
	},
	{
		in:   []string{"./realtime"},
		only: []string{"github.com/coder/websocket", "./bus", "./events"},
		why:  "it takes the service's bus and knows no transport",
	},
	{
		in:     []string{"./..."},
		except: []string{"./realtime/...", "./examples/..."},
		never:  []string{"github.com/coder/websocket/...", "github.com/chromedp/..."},
		why:    "only package realtime, which few link, knows WebSockets, and its tests a browser",
	},
	{
		in:   []string{"./telemetry/outboxmetrics"},
		only: []string{"./outbox", "go.opentelemetry.io/otel/...", "go.opentelemetry.io/otel"},
		why:  "it asks an outbox, so that package telemetry links no SQL code",
	},
	{
		in:     []string{"./..."},
		except: []string{"./telemetry/...", "./bench/...", "./examples/...", "./cmd/..."},
		never:  []string{"go.opentelemetry.io/..."},
		why:    "only package telemetry, which few link, knows OpenTelemetry",
	},
	{
		in:    []string{"./bus"}, // not bus/bustest, which runs on the memory transport
		never: []string{"./transports/*"},
		why:   "programs choose the transport",
	},
	{
		in:    []string{"./..."},
		never: []string{"./transports/transporttest/..."},
		why:   "only tests import the conformance suite, which imports testing",
	},
	{
		in:    []string{"./..."},
		never: []string{"./internal/testserver/...", "./internal/testsql/..."},
		why:   "only tests find or start servers",
	},
	{
		in:   []string{"./internal/testserver/..."},
		only: []string{},
		why:  "tests of every module use it, so it drags nothing along",
	},
	{
		in:     []string{"./..."},
		except: []string{"./transports/rabbitmq/...", "./transports/watermill/amqp/...", "./bench/..."},
		never:  []string{"github.com/rabbitmq/amqp091-go/..."},
		why:    "only transports/rabbitmq talks AMQP; transports/watermill/amqp reads headers, in its types; bench measures it raw",
	},
	{
		in:     []string{"./..."},
		except: []string{"./transports/watermill/amqp/...", "./bench/..."},
		never:  []string{"github.com/ThreeDotsLabs/watermill-amqp/..."},
		why:    "only transports/watermill/amqp adapts it; bench compares with it",
	},
	{
		in:     []string{"./..."},
		except: []string{"./transports/watermill/sql/...", "./bench/..."},
		never:  []string{"github.com/ThreeDotsLabs/watermill-sql/..."},
		why:    "only transports/watermill/sql adapts it; bench compares with it",
	},
	{
		in:     []string{"./..."},
		except: []string{"./examples/...", "./bench/...", "./cmd/...", "./transports/sql/pgnotify/...", "./transports/sql/sqltest/...", "./outbox/outboxtest/...", "./eventstore/eventstoretest/...", "./telemetry/telemetrytest/..."},
		never:  slices.Concat(sqlDrivers, otelSDK, []string{"google.golang.org/grpc/..."}),
		why:    "programs choose drivers, exporters and how else they talk",
	},
}

var linkRules = []linkRule{
	{
		in:    []string{"./events/...", "./handlers/...", "./transports", "./transports/memory/...", "./transports/watermill", "./middleware/...", "./bus/...", "./health/..."},
		never: slices.Concat(amqp, sqlCode, otelSDK),
		why:   "a program that imports bus and transports/memory links no AMQP, SQL or OpenTelemetry SDK code",
	},
	{
		in:    []string{"./realtime"},
		never: slices.Concat(amqp, sqlCode, otelSDK),
		why:   "who pushes events to browsers chooses the transport",
	},
	{
		in:    []string{"./telemetry"},
		never: slices.Concat(amqp, sqlCode, otelSDK),
		why:   "telemetry of a service on one transport links no other, and no SDK",
	},
	{
		in:    []string{"./bus/...", "./middleware/...", "./transports/...", "./outbox", "./inbox", "./eventstore", "./health/..."},
		never: []string{"go.opentelemetry.io/..."},
		why:   "who does not import telemetry links nothing of OpenTelemetry",
	},
}

func TestArrows(t *testing.T) {
	t.Parallel()
	packages := listPackages(t)
	seen := slices.ContainsFunc(packages, func(p pkg) bool {
		return p.ImportPath == module+"events" && slices.Contains(p.Imports, uuid) && slices.Contains(p.Deps, "database/sql/driver")
	})
	if !seen {
		t.Fatalf("go list does not show what events is known to import: the check is blind; it found %+v", packages)
	}
	for _, fault := range check(packages, importRules, linkRules) {
		t.Error(fault)
	}
}

// Every row of the tables catches what it forbids and passes what it allows.
func TestEveryRuleCanFail(t *testing.T) {
	t.Parallel()
	for _, r := range importRules {
		for _, pattern := range slices.Concat(r.in, r.except, r.only, r.never) {
			if standard(absolute(pattern)) {
				t.Errorf("%q is a package of the standard library; \"./\" is missing", pattern)
			}
		}
		var forbidden []string
		for _, pattern := range r.never {
			forbidden = append(forbidden, example(pattern))
		}
		if r.only != nil {
			forbidden = append(forbidden, "example.com/unheard/of", module+"cmd/tidings")
		}
		for _, in := range r.in {
			for _, path := range forbidden {
				bad := pkg{ImportPath: example(in), Imports: []string{"fmt", path}}
				if len(check([]pkg{bad}, []importRule{r}, nil)) == 0 {
					t.Errorf("%s may import %s, in spite of the rule %q", bad.ImportPath, path, r.why)
				}
			}
			good := pkg{ImportPath: example(in), Imports: []string{"fmt"}}
			for _, pattern := range r.only {
				good.Imports = append(good.Imports, example(pattern))
			}
			if faults := check([]pkg{good}, []importRule{r}, nil); len(faults) != 0 {
				t.Errorf("%s may not import what is allowed: %v", good.ImportPath, faults)
			}
		}
		for _, except := range r.except {
			excepted := pkg{ImportPath: example(except), Imports: forbidden}
			if faults := check([]pkg{excepted}, []importRule{r}, nil); len(faults) != 0 {
				t.Errorf("%s is not excepted: %v", excepted.ImportPath, faults)
			}
		}
	}
	for _, r := range linkRules {
		for _, in := range r.in {
			for _, pattern := range r.never {
				bad := pkg{ImportPath: example(in), Deps: []string{"fmt", example(pattern)}}
				if len(check([]pkg{bad}, nil, []linkRule{r})) == 0 {
					t.Errorf("%s may link %s, in spite of the rule %q", bad.ImportPath, example(pattern), r.why)
				}
			}
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	const amqp091 = "github.com/rabbitmq/amqp091-go"
	for name, tt := range map[string]struct {
		packages []pkg
		want     []string // "importer -> imported"
	}{
		"clean": {packages: []pkg{
			{ImportPath: module + "events", Imports: []string{"time", uuid}, Deps: []string{"database/sql/driver", "time", uuid}},
			{ImportPath: module + "handlers", Imports: []string{"context", module + "events"}},
			{ImportPath: module + "bus", Imports: []string{module + "transports", module + "middleware"}},
			{ImportPath: module + "bus/bustest", Imports: []string{module + "transports/memory"}},
			{ImportPath: module + "transports/rabbitmq", Imports: []string{amqp091}, Deps: []string{amqp091}},
			{ImportPath: module + "examples/shop", Imports: []string{"github.com/jackc/pgx/v5/stdlib"}},
		}},
		"events reaches for the bus": {
			packages: []pkg{{ImportPath: module + "events", Imports: []string{module + "bus"}}},
			want:     []string{"events -> bus"},
		},
		"a path that begins like an allowed one": {
			packages: []pkg{{ImportPath: module + "events", Imports: []string{uuid + "fake", uuid + "/sub"}}},
			want:     []string{"events -> github.com/google/uuidfake", "events -> github.com/google/uuid/sub"},
		},
		"the bus knows a transport": {
			packages: []pkg{{ImportPath: module + "bus", Imports: []string{module + "transports/memory"}}},
			want:     []string{"bus -> transports/memory"},
		},
		"AMQP twice": {
			packages: []pkg{{ImportPath: module + "audit", Imports: []string{amqp091}}},
			want:     []string{"audit -> " + amqp091},
		},
		"a driver three imports away": {
			packages: []pkg{{
				ImportPath: module + "bus", Imports: []string{module + "middleware"},
				Deps: []string{module + "middleware", "example.com/helper", "database/sql", "github.com/jackc/pgx/v5"},
			}},
			want: []string{"bus -> database/sql", "bus -> github.com/jackc/pgx/v5"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, f := range check(tt.packages, importRules, linkRules) {
				got = append(got, f.importer+" -> "+f.imported)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("faults:\n%q\nwant:\n%q", got, tt.want)
			}
		})
	}
}

// pkg is what go list says of a package.
type pkg struct {
	ImportPath string
	Imports    []string // direct, without those of test files
	Deps       []string // direct and indirect
}

type fault struct{ importer, imported, verb, why string }

func (f fault) String() string {
	return fmt.Sprintf("%s %s %s: %s", f.importer, f.verb, f.imported, f.why)
}

func check(packages []pkg, imports []importRule, links []linkRule) []fault {
	var faults []fault
	for _, p := range packages {
		report := func(verb, path, why string) {
			faults = append(faults, fault{short(p.ImportPath), short(path), verb, why})
		}
		for _, r := range imports {
			if !matchAny(r.in, p.ImportPath) || matchAny(r.except, p.ImportPath) {
				continue
			}
			for _, path := range p.Imports {
				outside := r.only != nil && !standard(path) && !matchAny(r.only, path)
				if outside || matchAny(r.never, path) {
					report("imports", path, r.why)
				}
			}
		}
		for _, r := range links {
			if !matchAny(r.in, p.ImportPath) {
				continue
			}
			for _, path := range p.Deps {
				if matchAny(r.never, path) {
					report("links", path, r.why)
				}
			}
		}
	}
	return faults
}

func short(path string) string { return strings.TrimPrefix(path, module) }

// standard reports whether path is in the standard library, whose paths, unlike those
// of modules, have no dot in their first element.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

func absolute(pattern string) string {
	if relative, ok := strings.CutPrefix(pattern, "./"); ok {
		return module + relative
	}
	return pattern
}

func matchAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		pattern = absolute(pattern)
		if base, ok := strings.CutSuffix(pattern, "/..."); ok {
			return path == base || strings.HasPrefix(path, base+"/")
		}
		if base, ok := strings.CutSuffix(pattern, "/*"); ok {
			return strings.HasPrefix(path, base+"/")
		}
		return path == pattern
	})
}

// example returns a path that matches pattern.
func example(pattern string) string {
	pattern = absolute(pattern)
	pattern = strings.TrimSuffix(pattern, "...")
	pattern = strings.TrimSuffix(pattern, "*")
	if strings.HasSuffix(pattern, "/") {
		pattern += "below"
	}
	return pattern
}

// listPackages returns the packages of all modules of go.work.
func listPackages(t *testing.T) []pkg {
	t.Helper()
	root := filepath.Join("..", "..")
	if _, err := os.Stat(filepath.Join(root, "go.work")); errors.Is(err, fs.ErrNotExist) {
		t.Skip("not in a checkout of the repository: there is no go.work")
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,Deps", "work")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var packages []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("output of go list: %v", err)
		}
		packages = append(packages, p)
	}
}
