package testserver

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Version is a release of a server that the library supports.
type Version struct {
	Server  Server
	Release string // a minor release, such as "4.3"
	// Debian is the release of Debian whose server the tests run, such as "trixie". It is
	// empty for a version that is supported and not run.
	Debian string
}

// Server is a program that the library connects to.
type Server string

// The servers of [StartRabbitMQ], [StartPostgres] and [StartMySQL].
const (
	RabbitMQServer Server = "rabbitmq"
	PostgresServer Server = "postgresql"
	MariaDBServer  Server = "mariadb"
	MySQLServer    Server = "mysql"
)

// Versions is the one list of supported versions. The matrix runs it; docs/versions.md and
// docker-compose.yml agree with it, or a test fails.
var Versions = []Version{
	{RabbitMQServer, "3.10", "bookworm"},
	{RabbitMQServer, "3.13", ""},
	{RabbitMQServer, "4.0", "trixie"},
	{RabbitMQServer, "4.1", ""},
	{RabbitMQServer, "4.2", ""},
	{RabbitMQServer, "4.3", "sid"},
	{PostgresServer, "15", "bookworm"},
	{PostgresServer, "16", ""},
	{PostgresServer, "17", "trixie"},
	{PostgresServer, "18", "sid"},
	{MariaDBServer, "10.11", "bookworm"},
	{MariaDBServer, "11.4", ""},
	{MariaDBServer, "11.8", "trixie"},
	{MySQLServer, "8.4", ""},
	{MySQLServer, "9.7", "sid"},
}

// String returns a version as TIDINGS_MATRIX names it, such as "rabbitmq-4.3".
func (v Version) String() string { return string(v.Server) + "-" + v.Release }

// Compare says whether a version such as "4.3.6" belongs to an earlier release (-1), to this
// one (0), or to a later one (1).
func (v Version) Compare(version string) int {
	have, want := strings.Split(version, "."), strings.Split(v.Release, ".")
	return slices.CompareFunc(have[:min(len(have), len(want))], want, func(a, b string) int {
		x, _ := strconv.Atoi(a)
		y, _ := strconv.Atoi(b)
		return cmp.Compare(x, y)
	})
}

// Variable names the environment variable that chooses the release of a private server.
func (s Server) Variable() string { return "TIDINGS_" + strings.ToUpper(string(s)) }

// root returns the folder whose programs a private server of the given release consists
// of. An empty release stands for the one that the environment chooses, else the installed
// one.
func (s Server) root(release string) (root, error) {
	if release == "" {
		release = os.Getenv(s.Variable())
	}
	if release == "" {
		return "", nil
	}
	for _, v := range Versions {
		if v.Server == s && v.Release == release {
			return v.root()
		}
	}
	return "", fmt.Errorf("%s %s is not in the list of supported versions", s, release)
}

// mustRoot is the root of the release that the environment chooses. It ends a test that has
// none.
func (s Server) mustRoot(tb testing.TB, pkg string) root {
	tb.Helper()
	r, err := s.root("")
	if err != nil {
		missing(tb, fmt.Sprintf("a private %s server can't be started: %v", s, err), pkg, rootsCommand)
	}
	return r
}

func (v Version) root() (root, error) {
	if v.Debian == "" {
		return "", fmt.Errorf("%s is supported, but no test runs it", v)
	}
	if v.Debian == codename("/etc/os-release") {
		return "", nil // the installed programs
	}
	dir := filepath.Join(rootsFolder(), v.Debian)
	if _, err := os.Stat(filepath.Join(dir, "usr")); err != nil {
		return "", fmt.Errorf("%s comes from Debian %s, which is not in %s", v, v.Debian, dir)
	}
	if os.Getuid() != 0 {
		return "", fmt.Errorf("only root can enter %s, which has %s", dir, v)
	}
	return root(dir), nil
}

// rootsFolder is where scripts/roots.sh installs other releases of Debian.
func rootsFolder() string {
	if dir := os.Getenv("TIDINGS_ROOTS"); dir != "" {
		return dir
	}
	return "/var/cache/tidings/roots"
}

// codename returns the name of the Debian release that an os-release file describes, or "".
func codename(osRelease string) string {
	text, err := os.ReadFile(osRelease)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			return strings.Trim(name, `"`)
		}
	}
	return ""
}

// rootsCommand installs the releases of Debian that the list names.
const rootsCommand = "scripts/roots.sh"
