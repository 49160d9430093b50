package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gotidings/tidings/internal/testserver"
)

// The table of docs/versions.md, the image of docker-compose.yml and the scripts that
// install servers agree with the list of supported versions.
func TestVersions(t *testing.T) {
	t.Parallel()
	inCheckout(t)
	if fault := checkVersionTable(read(t, "docs/versions.md")); fault != "" {
		t.Error(fault)
	}
	if fault := checkComposeFile(read(t, "docker-compose.yml")); fault != "" {
		t.Error(fault)
	}
	for _, v := range testserver.Versions {
		if v.Debian != "" && !installed(read(t, "scripts/roots.sh"), v) {
			t.Errorf("scripts/roots.sh does not install %s in Debian %s", v, v.Debian)
		}
	}
}

// installed reports whether the script has the package of a version.
func installed(script string, v testserver.Version) bool {
	_, rest, _ := strings.Cut(script, "\t"+v.Debian+") echo ")
	packages, _, _ := strings.Cut(rest, ";;")
	want := string(v.Server) + "-server"
	if v.Server == testserver.PostgresServer {
		want = "postgresql-" + v.Release
	}
	return slices.Contains(strings.Fields(packages), want)
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

var versionRow = regexp.MustCompile(`(?m)^\| (\S+) \| ([0-9.]+) \| (.*) \|$`)

func checkVersionTable(page string) (fault string) {
	var want, got []string
	for _, v := range testserver.Versions {
		tested := "not run"
		switch {
		case v.Debian == "":
		case v.Server == testserver.RabbitMQServer:
			tested = "one node, cluster of three"
		default:
			tested = "one server"
		}
		want = append(want, fmt.Sprintf("%s: %s", v, tested))
	}
	for _, row := range versionRow.FindAllStringSubmatch(page, -1) {
		got = append(got, fmt.Sprintf("%s-%s: %s", strings.ToLower(row[1]), row[2], row[3]))
	}
	if !slices.Equal(got, want) {
		return fmt.Sprintf("docs/versions.md has\n\t%s\nand internal/testserver\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	return ""
}

var rabbitMQImage = regexp.MustCompile(`(?m)^\s*image: rabbitmq:(\S+)$`)

// checkComposeFile wants the newest release that is tested.
func checkComposeFile(compose string) (fault string) {
	var want string
	for _, v := range testserver.Versions {
		if v.Server == testserver.RabbitMQServer && v.Debian != "" {
			want = v.Release + "-management"
		}
	}
	images := rabbitMQImage.FindAllStringSubmatch(compose, -1)
	if len(images) == 0 {
		return "docker-compose.yml has no RabbitMQ"
	}
	for _, image := range images {
		if image[1] != want {
			return fmt.Sprintf("docker-compose.yml has rabbitmq:%s, and the tests run %s", image[1], want)
		}
	}
	return ""
}

func TestVersionsThatDiffer(t *testing.T) {
	t.Parallel()
	inCheckout(t)
	table, compose := read(t, "docs/versions.md"), read(t, "docker-compose.yml")
	for _, change := range [][2]string{
		{"| RabbitMQ | 4.3 | one", "| RabbitMQ | 4.4 | one"},
		{"| RabbitMQ | 4.1 | not run |\n", ""},
		{"| RabbitMQ | 4.2 | not run |", "| RabbitMQ | 4.2 | one node, cluster of three |"},
	} {
		if changed := strings.Replace(table, change[0], change[1], 1); checkVersionTable(changed) == "" {
			t.Errorf("%q may be %q", change[0], change[1])
		}
	}
	for _, image := range []string{"rabbitmq:4-management", "rabbitmq:4.0-management"} {
		if changed := rabbitMQImage.ReplaceAllString(compose, "    image: "+image); checkComposeFile(changed) == "" {
			t.Errorf("docker-compose.yml may have %s", image)
		}
	}
}
