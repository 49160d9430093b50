package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gotidings/tidings/internal/testserver"
)

// backend is where scripts run.
type backend struct {
	name string
	// transport returns the URL of a broker without anything in it, for one script.
	transport  func(t *testing.T, dir string) string
	management func(t *testing.T) string
}

var sqliteBackend = backend{
	name: "sqlite",
	transport: func(_ *testing.T, dir string) string {
		return "sqlite:" + filepath.ToSlash(filepath.Join(dir, "events.db"))
	},
	management: func(*testing.T) string { return "" },
}

// rabbitmqBackend starts a broker of the test's own: scripts make vhosts and users, which
// needs its management API.
func rabbitmqBackend(t *testing.T) backend {
	t.Helper()
	b := testserver.StartRabbitMQ(t, testserver.Management)
	awaitManagement(t, b.ManagementURL())
	var vhosts atomic.Int32
	return backend{
		name: "rabbitmq",
		transport: func(t *testing.T, _ string) string {
			t.Helper()
			vhost := fmt.Sprintf("test%d", vhosts.Add(1))
			manage(t, b.ManagementURL(), "/api/vhosts/"+vhost, "{}")
			manage(t, b.ManagementURL(), "/api/permissions/"+vhost+"/guest", `{"configure":".*","write":".*","read":".*"}`)
			manage(t, b.ManagementURL(), "/api/users/nobody", `{"password":"topsecret","tags":"management"}`)
			manage(t, b.ManagementURL(), "/api/permissions/"+vhost+"/nobody", `{"configure":"","write":"","read":""}`)
			return b.URL() + vhost
		},
		management: func(*testing.T) string { return b.ManagementURL() },
	}
}

func awaitManagement(t *testing.T, base string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		if call(t, http.MethodGet, base, "/api/vhosts", "") == http.StatusOK {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the management API does not answer")
		}
		<-time.After(100 * time.Millisecond)
	}
}

// manage puts something into a broker by its HTTP API.
func manage(t *testing.T, base, path, body string) {
	t.Helper()
	if status := call(t, http.MethodPut, base, path, body); status/100 != 2 {
		t.Fatalf("PUT %s: status %d", path, status)
	}
}

// call returns the status of an answer, 0 when there was none.
func call(t *testing.T, method, base, path, body string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, base+path, bytes.NewBufferString(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true // no goroutine is left that keeps the connection
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}

func TestScriptsSQLite(t *testing.T) { //nolint:tparallel // testscript makes parallel subtests
	t.Parallel()
	runScripts(t, sqliteBackend, "testdata/both", "testdata/sqlite")
}

func TestScriptsRabbitMQ(t *testing.T) { //nolint:tparallel // testscript makes parallel subtests
	t.Parallel()
	runScripts(t, rabbitmqBackend(t), "testdata/both", "testdata/rabbitmq")
}

func TestScripts(t *testing.T) { //nolint:tparallel // testscript makes parallel subtests
	t.Parallel()
	runScripts(t, backend{name: "none"}, "testdata/any")
}

// runScripts runs the scripts of folders against a backend, and returns when all are done.
// In a script, TIDINGS_TRANSPORT is a broker of its own; [backend:NAME] is a condition.
func runScripts(t *testing.T, b backend, dirs ...string) {
	t.Helper()
	var files []string
	for _, dir := range dirs {
		found, err := filepath.Glob(filepath.Join(dir, "*.txt"))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	if len(files) == 0 {
		t.Fatalf("no scripts in %s", dirs)
	}
	// The group returns when its parallel subtests have ended, while the broker lives.
	t.Run("scripts", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Files:               files,
			RequireExplicitExec: true,
			Setup: func(env *testscript.Env) error {
				env.Setenv("HOME", env.WorkDir)
				if b.transport == nil {
					return nil
				}
				address := b.transport(t, env.WorkDir)
				env.Setenv("TIDINGS_TRANSPORT", address)
				env.Setenv("MANAGEMENT", b.management(t))
				if u, err := url.Parse(address); err == nil {
					env.Setenv("HOSTPATH", strings.TrimSuffix(u.Host+u.Path+"?"+u.RawQuery, "?"))
					env.Setenv("SCHEMA", u.Query().Get("schema"))
				}
				world := &world{address: address}
				env.Values["world"] = world
				env.Defer(func() {
					if err := world.close(); err != nil {
						panic(err) // fails the script
					}
				})
				return nil
			},
			Condition: func(cond string) (bool, error) {
				name, ok := strings.CutPrefix(cond, "backend:")
				if !ok {
					return false, fmt.Errorf("unknown condition %q", cond)
				}
				return name == b.name, nil
			},
			Cmds: scriptCommands,
		})
	})
}

// world is the services that run beside a script.
type world struct {
	address string

	tailing *exec.Cmd
	tailed  bytes.Buffer

	mu    sync.Mutex
	stops []func() error
}
