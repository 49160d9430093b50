package testserver_test

import (
	"testing"

	"github.com/gotidings/tidings/internal/testserver"
)

// A database server of a test comes back, at the same place, when it was killed.
func TestDatabaseComesBack(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB) *testserver.Database{
		"postgres": testserver.StartPostgres, "mariadb": testserver.StartMySQL,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t)
			url := d.URL()
			if !answers(d.Addr()) {
				t.Error("it does not answer after Start")
			}
			d.Kill()
			if answers(d.Addr()) {
				t.Error("it answers after Kill")
			}
			d.Start()
			if !answers(d.Addr()) {
				t.Error("it does not answer after the second Start")
			}
			if d.URL() != url {
				t.Errorf("it has moved from %s to %s", url, d.URL())
			}
		})
	}
}
