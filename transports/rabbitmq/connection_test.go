package rabbitmq

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
)

func TestOpenIsRefused(t *testing.T) {
	t.Parallel()
	broker, err := url.Parse(brokerURL(t))
	if err != nil {
		t.Fatal(err)
	}
	wrongPassword, wrongVhost := *broker, *broker
	wrongPassword.User = url.UserPassword("guest", "secret")
	wrongVhost.Path = "/no-such-vhost"
	for name, c := range map[string]struct {
		url  url.URL
		code int
	}{
		"wrong password": {wrongPassword, amqp.AccessRefused},
		"missing vhost":  {wrongVhost, amqp.NotAllowed},
	} {
		started := time.Now()
		_, err := transports.Open(t.Context(), c.url.String())
		if err == nil || !isCode(err, c.code) && !isCode(err, amqp.AccessRefused) {
			t.Errorf("%s: %v; want %d", name, err, c.code)
		}
		if took := time.Since(started); took > 5*time.Second {
			t.Errorf("%s: it took %v", name, took)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), broker.Host)) {
			t.Errorf("%s: want the address and not the password: %v", name, err)
		}
	}
}

// Whoever gives up waiting for a broker says why it can't be reached, first.
func TestBrokerThatIsAwayIsExplained(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 500*time.Millisecond, errors.New("no answer in time"))
	defer cancel()
	_, err := Open(ctx, Config{URLs: []string{"amqp://guest:topsecret@127.0.0.1:1/"}})
	if err == nil || !errors.Is(err, syscall.ECONNREFUSED) || !strings.HasPrefix(err.Error(), "rabbitmq: connect to 127.0.0.1:1: ") ||
		!strings.HasSuffix(err.Error(), "; gave up: no answer in time") {
		t.Errorf("Open: %v; want what the operating system says, and that the time is over", err)
	}

	var n testserver.Network
	b := newBench(t, nil)
	cfg := b.cfg
	cfg.Dial = n.Dial
	tr := mustOpen(t, cfg)
	t.Cleanup(func() { _ = tr.Close() })
	n.Cut()
	b.eventually("Ping says why there is no connection", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		err := tr.Ping(ctx)
		return err != nil && errors.Is(err, context.DeadlineExceeded) && strings.Contains(err.Error(), "connect to ")
	})
}

func TestNextHostIsTried(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.URLs = append([]string{"amqp://guest:guest@127.0.0.1:1/"}, c.URLs...) })
	b.publish("1")
	if err := b.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestConnectionsHaveNames(t *testing.T) {
	t.Parallel()
	var seen sync.Map
	b := newBench(t, func(c *Config) { c.Name = "shop" })
	cfg := b.cfg.withDefaults()
	_, l, err := parseNodes(cfg.URLs)
	if err != nil {
		t.Fatal(err)
	}
	nodes, _, _ := parseNodes(cfg.URLs)
	for _, role := range []string{"publish", "consume"} {
		c := newConnection(role, cfg, nodes, l)
		conn, err := c.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen.Store(conn.Config.Properties["connection_name"], true)
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, want := range []string{"shop publish", "shop consume"} {
		if _, ok := seen.Load(want); !ok {
			t.Errorf("no connection is named %q", want)
		}
	}
}

// Nothing of the password is in the log of a lost connection.
func TestLogTellsOfTheConnection(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	var n testserver.Network
	b := newBench(t, nil)
	cfg := b.cfg
	cfg.Dial, cfg.Logger = n.Dial, slog.New(slog.NewTextHandler(&log, nil))
	broker, err := url.Parse(brokerURL(t))
	if err != nil {
		t.Fatal(err)
	}
	tr := mustOpen(t, cfg)
	t.Cleanup(func() { _ = tr.Close() })
	n.Cut()
	b.eventually("the log tells of it", func() bool { return strings.Contains(log.String(), "can't be reached") })
	n.Restore()
	b.eventually("the log tells of the return", func() bool { return strings.Contains(log.String(), "connected to RabbitMQ again") })
	if !strings.Contains(log.String(), "connection to RabbitMQ is lost") {
		t.Error("it does not say that the connection was lost")
	}
	if password, _ := broker.User.Password(); strings.Contains(log.String(), ":"+password+"@") {
		t.Errorf("the log has the password:\n%s", log.String())
	}
}

type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TLS is terminated in front of the broker, which is how many are run.
func TestTLS(t *testing.T) {
	t.Parallel()
	pki := newPKI(t)
	addr := pki.terminate(t, brokerURL(t))
	rawURL := "amqps://guest:guest@" + addr + "/?connect_timeout=3s&exchange=" + newExchange(t)
	withCA := rawURL + "&cacertfile=" + url.QueryEscape(pki.caFile) + "&server_name_indication=broker.test"
	withAll := withCA + "&certfile=" + url.QueryEscape(pki.certFile) + "&keyfile=" + url.QueryEscape(pki.keyFile)

	tr, err := transports.Open(t.Context(), withAll)
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.(transports.Pinger).Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct{ url, want string }{
		"unknown authority":     {rawURL, "certificate"},
		"no client certificate": {withCA, "certificate required"},
		"another name":          {strings.Replace(withAll, "broker.test", "elsewhere.test", 1), "not elsewhere.test"},
	} {
		var err error
		for range 5 { // a client that writes while it is being turned away says only that it is closed
			if _, err = transports.Open(t.Context(), c.url); err == nil || !strings.Contains(err.Error(), amqp.ErrClosed.Error()) {
				break
			}
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "no broker answered") {
			t.Errorf("%s: %v; want %q at once", name, err, c.want)
		}
	}
}

// pki is a certificate authority with a server and a client.
type pki struct {
	ca                        *x509.Certificate
	key                       *ecdsa.PrivateKey
	server                    tls.Certificate
	caFile, certFile, keyFile string
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{}
	p.key = newKey(t)
	p.ca = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, p.ca, p.ca, &p.key.PublicKey, p.key)
	if err != nil {
		t.Fatal(err)
	}
	p.caFile = writePEM(t, "ca.pem", "CERTIFICATE", der)
	certificate, key := p.issue(t, x509.ExtKeyUsageServerAuth)
	if p.server, err = tls.X509KeyPair(certificate, key); err != nil {
		t.Fatal(err)
	}
	certificate, key = p.issue(t, x509.ExtKeyUsageClientAuth)
	p.certFile, p.keyFile = writeFile(t, "cert.pem", certificate), writeFile(t, "key.pem", key)
	return p
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (p *pki) issue(t *testing.T, usage x509.ExtKeyUsage) (certificate, key []byte) {
	t.Helper()
	k := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"broker.test"}, NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, p.ca, &k.PublicKey, p.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func writePEM(t *testing.T, name, kind string, der []byte) string {
	t.Helper()
	return writeFile(t, name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func writeFile(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// terminate listens for TLS with client certificates, and passes on to the broker.
func (p *pki) terminate(t *testing.T, broker string) (addr string) {
	t.Helper()
	u, err := url.Parse(broker)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	content, err := os.ReadFile(p.caFile)
	if err != nil || !pool.AppendCertsFromPEM(content) {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{p.server}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			near, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			serving.Go(func() { pipe(near, u.Host) })
		}
	})
	return listener.Addr().String()
}

func pipe(near net.Conn, addr string) {
	defer func() { _ = near.Close() }()
	far, err := net.Dial("tcp", addr) //nolint:noctx // in a test's proxy
	if err != nil {
		return
	}
	var copying sync.WaitGroup
	copying.Go(func() {
		_, _ = io.Copy(far, near) // until either side is closed
		_ = far.Close()
	})
	_, _ = io.Copy(near, far)
	_ = near.Close()
	copying.Wait()
}
