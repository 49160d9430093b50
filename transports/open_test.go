package transports_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gotidings/tidings/transports"
	_ "github.com/gotidings/tidings/transports/memory"
)

var errRefused = errors.New("connection refused")

func init() {
	transports.Register("refusing", func(_ context.Context, u *url.URL) (transports.Transport, error) {
		if password, _ := u.User.Password(); password == "" {
			return nil, errors.New("no password")
		}
		return nil, errRefused
	})
	transports.Register("telling", func(ctx context.Context, u *url.URL) (transports.Transport, error) {
		transports.OpenLogger(ctx).Warn("connection is lost", "host", u.Host)
		return nil, errRefused
	})
}

func TestOpenChoosesTheDriverByScheme(t *testing.T) {
	t.Parallel()
	tr, err := transports.Open(t.Context(), "memory://")
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	_, err = transports.Open(t.Context(), "REFUSING://user:password@host")
	if !errors.Is(err, errRefused) || !strings.Contains(err.Error(), "open refusing transport") {
		t.Errorf("got %v; want what the driver says", err)
	}
}

func TestDriverGetsTheLogger(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	for _, opts := range [][]transports.OpenOption{{transports.WithLogger(log)}, {}, {transports.WithLogger(nil)}} {
		if _, err := transports.Open(t.Context(), "telling://host", opts...); !errors.Is(err, errRefused) {
			t.Error(err)
		}
	}
	if got := out.String(); strings.Count(got, "connection is lost") != 1 || !strings.Contains(got, "host=host") {
		t.Errorf("logged %q, want the one line of the driver with a logger", got)
	}
}

// A scheme that is misspelt, or another library's: the error lists what there is.
func TestUnknownSchemeListsTheDrivers(t *testing.T) {
	t.Parallel()
	_, err := transports.Open(t.Context(), "ampq://user:secret@host")
	if !errors.Is(err, transports.ErrUnknownScheme) {
		t.Fatalf("got %v; want ErrUnknownScheme", err)
	}
	for _, want := range []string{`"ampq"`, "imports drivers for [memory refusing", "has drivers for [amqp amqps memory"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v; want it to say %s", err, want)
		}
	}
}

// The error for a scheme of this project names the package that registers it, and a driver
// of database/sql where the package says that it needs one. Both are read from the sources.
func TestSchemeThatIsNotImportedNamesItsPackage(t *testing.T) {
	t.Parallel()
	registered := regexp.MustCompile(`transports\.Register\("([^"]+)"`)
	found := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var schemes []string
		for _, match := range registered.FindAllStringSubmatch(string(source), -1) {
			schemes = append(schemes, match[1])
		}
		if strings.Contains(string(source), "transports.Register(scheme") { // a loop over openers
			for _, match := range regexp.MustCompile(`(?m)^\t"(\w+)": +\w+Opener,$`).FindAllStringSubmatch(string(source), -1) {
				schemes = append(schemes, match[1])
			}
		}
		for _, scheme := range schemes {
			found++
			if scheme == "memory" { // which this test imports
				continue
			}
			_, err := transports.Open(t.Context(), scheme+"://user:secret@host")
			if !errors.Is(err, transports.ErrUnknownScheme) {
				t.Errorf("%s: got %v; want ErrUnknownScheme", scheme, err)
				continue
			}
			want := []string{`_ "github.com/gotidings/tidings/transports/` + filepath.ToSlash(filepath.Dir(path)) + `"`}
			switch {
			case strings.Contains(scheme, "postgres"):
				want = append(want, `_ "github.com/jackc/pgx/v5/stdlib"`)
			case strings.Contains(scheme, "mysql"):
				want = append(want, `_ "github.com/go-sql-driver/mysql"`)
			case scheme == "sqlite":
				want = append(want, `_ "modernc.org/sqlite"`)
			}
			for _, text := range want {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%s: got %v; want it to have %s", scheme, err, text)
				}
			}
			if strings.Contains(err.Error(), "transports/memory") {
				t.Errorf("%s: got %v, which names memory", scheme, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found != 11 {
		t.Errorf("found %d schemes in the sources, want 11: mend the test, or packages in open.go", found)
	}
}

func TestMalformedURLIsExplainedWithoutQuotingIt(t *testing.T) {
	t.Parallel()
	for rawURL, want := range map[string]string{
		"":                                  "has no scheme",
		"localhost/secret":                  "has no scheme",
		"amqp://user:secret%zz@host":        "% sign in a password is written %25",
		"amqp://user:secret%@host":          "% sign in a password is written %25",
		"amqp://user:secret/more@host":      "must be %-escaped",
		"amqp://user:secret#more@host":      "must be %-escaped",
		"amqp://user:secret more@host":      "must be %-escaped",
		"amqp://user:secret\n@host":         "must be %-escaped",
		"amqp://user:secret@ho st":          "a host name can't have",
		"amqp://user:secret@host:port":      "must be %-escaped",
		"://user:secret@host":               "must be %-escaped",
		"user:secret@host":                  `unknown transport scheme "user"`,
		"amqp://user:secret@host/%":         "written %25",
		"refusing://user:secret@host":       "connection refused",
		"refusing://user:secret@host/?x=%z": "connection refused",
	} {
		_, err := transports.Open(t.Context(), rawURL)
		switch {
		case err == nil:
			t.Errorf("%q is accepted", rawURL)
		case strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "more"):
			t.Errorf("%q: the error has the password: %v", rawURL, err)
		case !strings.Contains(err.Error(), want):
			t.Errorf("%q: got %v; want %q", rawURL, err, want)
		}
	}
}

func TestRegisteringASchemeTwicePanics(t *testing.T) {
	t.Parallel()
	defer func() {
		if r := recover(); r != `transports: scheme "memory" is registered twice` {
			t.Errorf("recovered %v", r)
		}
	}()
	transports.Register("memory", nil)
}

func FuzzOpen(f *testing.F) {
	for _, scheme := range []string{"memory", "refusing", "amqp", "", "1", "a b", "memory:"} {
		for _, odd := range []string{"", "%", "%2", "%zz", "/", "?", "#", "@", ":", " ", "\n", "\x00", "[", "]", "é", "\xff", "&queue_size=", ";", "//"} {
			f.Add(scheme, odd, "host:1/vhost?queue_size=1")
		}
	}
	f.Fuzz(func(t *testing.T, scheme, odd, rest string) {
		const secret = "S3CRET"
		if strings.Contains(scheme+odd+rest, secret) || strings.ContainsAny(scheme, "/?#") {
			t.Skip("the secret is no password then")
		}
		for _, rawURL := range []string{
			scheme + "://user:" + secret + odd + secret + "@" + rest,
			scheme + "://user:" + odd + secret + "@" + rest,
			"memory://user:" + odd + secret + "@" + rest,
			scheme + odd + rest,
		} {
			tr, err := transports.Open(t.Context(), rawURL)
			if err == nil {
				if err := tr.Close(); err != nil {
					t.Error(err)
				}
				continue
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%q: the error has the password: %v", rawURL, err)
			}
		}
	})
}

func TestOpenTellsAWrongURLFromABrokerThatIsAway(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{"", "no-scheme", "amqp://user:pa%ss@host", "://", "http://[::1", "memory://host", "memory://?nonsense=1"} {
		if _, err := transports.Open(t.Context(), raw); !errors.Is(err, transports.ErrInvalidURL) {
			t.Errorf("Open(%q): %v, want ErrInvalidURL", raw, err)
		}
	}
}
