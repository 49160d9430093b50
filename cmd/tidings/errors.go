package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/rabbitmq"
)

// Exit statuses; 0 is that all was done. docs/cli.md has the rule.
const (
	exitFault = 1 // a fault; not finished; nothing of what was named
	exitUsage = 2 // a usage error: nothing was tried
)

// usageError is a fault of the command line, and no other.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// timeoutError is the cause of the end of a call's time.
type timeoutError struct{ timeout time.Duration }

func (e *timeoutError) Error() string {
	return fmt.Sprintf("no answer within %v (--timeout)", e.timeout)
}

// exitCode returns the status for an error of a command.
func exitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.As(err, new(*usageError)), errors.Is(err, transports.ErrInvalidURL), errors.Is(err, transports.ErrUnknownScheme):
		return exitUsage
	}
	return exitFault
}

// explain adds to an error what to do about it, where the error does not say so itself in
// the words of a command line.
func (a *app) explain(err error) error {
	text := err.Error()
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	case errors.Is(err, transports.ErrUnknownScheme):
		return errors.New("unknown scheme in --transport; amqp://, amqps://, postgres://, mysql:// and sqlite: are known")
	case strings.HasPrefix(text, "rabbitmq: management: Get "):
		return fmt.Errorf("%w; check --management-url", err)
	case strings.HasPrefix(text, "--management-url"):
		return err
	case errors.Is(err, transports.ErrInvalidURL):
		return fmt.Errorf("%w (--transport, or TIDINGS_TRANSPORT)", err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w; check that it is up, and the host and port in --transport", err)
	case errors.As(err, new(*net.DNSError)):
		return fmt.Errorf("%w; check the host in --transport", err)
	case isTLS(err), matches(text, "does not support TLS", "refused TLS connection"):
		return fmt.Errorf("%w; check the port, the certificates and the settings of TLS in --transport", err)
	case errors.As(err, new(*timeoutError)), errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w; look whether the broker is up, or give it longer by --timeout", err)
	case strings.Contains(text, "run Migrate"):
		return errors.New("the tables are missing or of an older version; run tidings migrate")
	case strings.Contains(text, "unable to open database file"):
		return errors.New("there is no such database file, or it can't be opened; check --transport, or make it by tidings migrate")
	case matches(text, "username or password not allowed", "password authentication failed", "Access denied for user", "ACCESS_REFUSED - Login"):
		return fmt.Errorf("%w; check the user and password in --transport", err)
	case matches(text, "ACCESS_REFUSED", "access to ", "permission denied", "command denied", "readonly database", "insufficient privilege"):
		return fmt.Errorf("%w; give the user of --transport the rights for this, or use another one", err)
	case matches(text, "NOT_ALLOWED - vhost", "SQLSTATE 3D000", "Unknown database"):
		return fmt.Errorf("%w; check the vhost or database in --transport", err)
	case strings.Contains(text, "file is not a database"):
		return fmt.Errorf("%w; check the file in --transport", err)
	case strings.Contains(text, "topology mode"):
		return fmt.Errorf("%w; tidings migrate declares what services need", err)
	case errors.Is(err, rabbitmq.ErrUnroutable):
		return fmt.Errorf("%w; the broker has dropped the event", err)
	case errors.Is(err, transports.ErrNoSubscription):
		if a.isAMQP() && a.management == "" {
			return fmt.Errorf("%w; tidings subscriptions list --management-url URL shows what there is", err)
		}
		return fmt.Errorf("%w; tidings subscriptions list shows what there is", err)
	}
	return err
}

// isTLS reports whether an error is one of the TLS handshake.
func isTLS(err error) bool {
	return errors.As(err, new(tls.RecordHeaderError)) || errors.As(err, new(*tls.CertificateVerificationError)) || errors.As(err, new(tls.AlertError))
}

// matches reports whether one of the phrases is in a text: drivers have no common errors.
func matches(text string, phrases ...string) bool {
	return slices.ContainsFunc(phrases, func(p string) bool { return strings.Contains(text, p) })
}

// loginInURL finds the user and password of a URL in a text.
var loginInURL = regexp.MustCompile(`://[^/@\s"']*@`)

// oneLine writes an error as one line, without the secrets of the URLs that were given.
func oneLine(err error, secrets ...string) string {
	text := strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	for _, raw := range secrets {
		if raw == "" {
			continue
		}
		text = strings.ReplaceAll(text, raw, "***")
		u, err := url.Parse(raw)
		if err != nil {
			continue
		}
		if password, _ := u.User.Password(); len(password) > 2 && password != u.User.Username() {
			text = strings.ReplaceAll(text, password, "***")
			text = strings.ReplaceAll(text, url.QueryEscape(password), "***")
		}
	}
	return loginInURL.ReplaceAllStringFunc(text, func(found string) string {
		if found == "://user:password@" { // an example of ours
			return found
		}
		return "://***@"
	})
}
