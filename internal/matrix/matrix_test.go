package matrix

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gotidings/tidings/internal/testserver"
)

// TestMatrix runs every suite on every version.
//
//nolint:paralleltest // the machine is for one server at a time
func TestMatrix(t *testing.T) {
	if !*run {
		t.Skip("make matrix runs it")
	}
	bins := build(t)
	for _, v := range testserver.Versions {
		t.Run(v.String(), func(t *testing.T) {
			if v.Debian == "" && named(v.String()) == nil {
				fmt.Printf("%-22s not run: it is supported, and no Debian release of the list has it\n", v)
				t.SkipNow()
			}
			if v.Server != testserver.RabbitMQServer {
				runLegs(t, v, v.String(), onDatabase[v.Server], bins, startDatabase)
				return
			}
			t.Run("node", func(t *testing.T) { runLegs(t, v, v.String(), onNode, bins, startNode) })
			t.Run("cluster", func(t *testing.T) { runLegs(t, v, v.String()+"-cluster", onCluster, bins, startCluster) })
		})
	}
}

func startNode(t *testing.T, v testserver.Version) (urls []string) {
	t.Helper()
	b := testserver.StartRabbitMQ(t, testserver.Release(v.Release))
	compare(t, v, b.Version())
	return []string{b.URL()}
}

// compare reports a server that has left its release, as Debian's sid does.
func compare(t *testing.T, v testserver.Version, got string) {
	t.Helper()
	switch v.Compare(got) {
	case -1:
		t.Fatalf("%s: the server is %s", v, got)
	case 1:
		fmt.Printf("%-22s Debian %s has moved on to %s: the list of versions needs it\n", v, v.Debian, got)
	}
}

func startCluster(t *testing.T, v testserver.Version) (urls []string) {
	t.Helper()
	return testserver.StartRabbitMQCluster(t, 3, testserver.Release(v.Release)).URLs()
}

// runLegs runs suites on the server that TIDINGS_MATRIX names, else on one that start
// starts. The suites that start servers of their own run afterwards, alone.
func runLegs(t *testing.T, v testserver.Version, server string, suites []suite, bins binaries,
	start func(*testing.T, testserver.Version) []string,
) {
	t.Helper()
	suites = slices.DeleteFunc(slices.Clone(suites), func(s suite) bool { return s.release != "" && s.release != v.Release })
	legs.planned += len(suites)
	environment := append(os.Environ(), v.Server.Variable()+"="+v.Release)
	urls := named(server)
	t.Run("public", func(t *testing.T) {
		urls := urls
		if urls == nil {
			urls = start(t, v)
		}
		for _, s := range suites {
			if !s.private {
				runLeg(t, server, s, bins, urls, append(environment, urlVariable[v.Server]+"="+strings.Join(urls, " ")))
			}
		}
	})
	t.Run("private", func(t *testing.T) {
		for _, s := range suites {
			switch {
			case !s.private:
			case urls != nil:
				report(server, s.name, "not run: it starts servers of its own")
				if os.Getenv("REQUIRE_SERVICES") == "1" {
					t.Errorf("%s: %s is not run", server, s.name)
				}
			default:
				runLeg(t, server, s, bins, nil, environment)
			}
		}
	})
}

// urlVariable is where tests look for a running server.
var urlVariable = map[testserver.Server]string{
	testserver.RabbitMQServer: "RABBITMQ_URL",
	testserver.PostgresServer: "POSTGRES_URL",
	testserver.MariaDBServer:  "MYSQL_URL",
	testserver.MySQLServer:    "MYSQL_URL",
}

// startDatabase starts a server of a version and returns its URL.
func startDatabase(t *testing.T, v testserver.Version) (urls []string) {
	t.Helper()
	t.Setenv(v.Server.Variable(), v.Release)
	start := testserver.StartMySQL
	if v.Server == testserver.PostgresServer {
		start = testserver.StartPostgres
	}
	d := start(t)
	compare(t, v, d.Version())
	return []string{d.URL()}
}

func runLeg(t *testing.T, server string, s suite, bins binaries, urls, environment []string) {
	t.Helper()
	begin := time.Now()
	out, err := bins.run(t, s, urls, environment)
	took := time.Since(begin).Round(time.Second)
	if err != nil {
		legs.failed++
		report(server, s.name, fmt.Sprintf("FAILED after %s: %v\n%s", took, err, out))
		t.Errorf("%s: %s: %v", server, s.name, err)
		return
	}
	legs.passed++
	report(server, s.name, "ok "+took.String())
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "SKIPPED ") {
			fmt.Print(line)
		}
	}
}

func report(server, suite, result string) { fmt.Printf("%-22s %-26s %s\n", server, suite, result) }

// named returns the URLs that TIDINGS_MATRIX has for a server, or nil.
func named(server string) []string {
	for entry := range strings.FieldsSeq(os.Getenv("TIDINGS_MATRIX")) {
		if name, urls, _ := strings.Cut(entry, "="); name == server {
			return strings.Split(urls, ",")
		}
	}
	return nil
}
