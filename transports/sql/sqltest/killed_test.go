package sqltest

import (
	"bufio"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// victim builds the program, once.
var victim = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs(".")
	if err != nil {
		return "", err
	}
	file := filepath.Join(buildDir(), "victim")
	cmd := exec.Command("go", "build", "-o", file, "./victim")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return string(out), err
	}
	return file, nil
})

// sighting is an id that a victim has printed.
type sighting struct {
	id string
	at time.Time
}

// startVictim starts a consumer that prints what it handles, until it is killed.
func startVictim(t *testing.T, url string, seen chan<- sighting) *exec.Cmd {
	t.Helper()
	file, err := victim()
	if err != nil {
		t.Fatalf("build: %v\n%s", err, file)
	}
	cmd := exec.CommandContext(t.Context(), file, "-url", url)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			seen <- sighting{lines.Text(), time.Now()}
		}
	})
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		reading.Wait()
		_ = cmd.Wait()
		if stderr.Len() > 0 {
			t.Errorf("victim: %s", &stderr)
		}
	})
	return cmd
}

// Four processes share a subscription, and two of them are killed in the middle. Nothing
// is lost, and what they held is handled by the others within one lease.
func TestKilledConsumers(t *testing.T) {
	t.Parallel()
	const lease = 2 * time.Second
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			sub := transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 1}
			if err := tr.DeclareSubscription(t.Context(), sub, tsql.FromNow); err != nil {
				t.Fatal(err)
			}
			const n = 6000
			ids := numbers(1, n)
			for part := range slices.Chunk(ids, 500) {
				publish(t, tr, "a", part...)
			}
			seen := make(chan sighting, 4*n)
			url := b.url(t, "lease", lease.String())
			var victims []*exec.Cmd
			for range 4 {
				victims = append(victims, startVictim(t, url, seen))
			}
			handled := make(map[string]int)
			next := func() sighting {
				select {
				case s := <-seen:
					handled[s.id]++
					return s
				case <-time.After(deadline):
					t.Fatalf("%d of %d are handled after %s", len(handled), n, deadline)
					return sighting{}
				}
			}
			for len(handled) < n*9/10 { // so that little else is left to do afterwards
				next()
			}
			for _, cmd := range victims[:2] {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			killed := time.Now()
			var last sighting
			for len(handled) < n {
				last = next()
			}
			// The lease, the poll that finds it has ended, and the work; a busy machine is slow.
			if took := last.at.Sub(killed); took > lease+3*time.Second {
				t.Errorf("the last was handled %s after the kill; the lease is %s", took, lease)
			}
			eventually(t, b.DB, 0, "select count(*) from "+b.table("claims"))
			// What is repeated is what was in flight, or was settled a moment before.
			twice := 0
			for _, times := range handled {
				if times > 1 {
					twice++
				}
			}
			t.Logf("%d of %d were handled twice", twice, n)
			if twice > n/10 {
				t.Errorf("%d of %d were handled twice: what was settled is not recorded", twice, n)
			}
		})
	}
}
