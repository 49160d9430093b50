package testserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// brokerSetup is what the brokers of a cluster share.
type brokerSetup struct {
	brokerOptions

	root     root
	account  account
	programs string // folder, as the brokers see it
	epmd     string // Erlang's port mapper
	epmdPort int
	cookie   string
}

func newBrokerSetup(tb testing.TB, options []Option) *brokerSetup {
	tb.Helper()
	s := &brokerSetup{epmdPort: FreePort(tb)}
	for _, option := range options {
		option(&s.brokerOptions)
	}
	s.cookie = "TIDINGS" + strconv.Itoa(s.epmdPort)
	var err error
	provided := []string{rabbitMQPackage, rootsCommand}
	if s.root, err = RabbitMQServer.root(s.release); err == nil {
		err = s.findPrograms()
	}
	if err != nil {
		missing(tb, fmt.Sprintf("a private RabbitMQ server can't be started: %v", err), provided...)
	}
	s.account = serviceAccount(s.root, "rabbitmq")
	return s
}

func (s *brokerSetup) findPrograms() error {
	if s.epmd = s.root.find("epmd"); s.epmd == "" {
		return errors.New("there is no epmd")
	}
	// Debian's programs in PATH are wrappers that change the user and the folder; these
	// are what they call.
	const debian = "/usr/lib/rabbitmq/bin"
	if _, err := os.Stat(s.root.outside(filepath.Join(debian, "rabbitmq-server"))); err == nil {
		s.programs = debian
		return nil
	}
	server := s.root.find("rabbitmq-server")
	if server == "" {
		return errors.New("there is no rabbitmq-server")
	}
	if strings.HasSuffix(server, ".bat") {
		return errors.New("not supported on Windows")
	}
	s.programs = filepath.Dir(server)
	return nil
}

// startPortMapper starts a port mapper in the foreground. The broker would otherwise start
// one that outlives the test.
func (s *brokerSetup) startPortMapper(tb testing.TB, addresses ...string) {
	tb.Helper()
	cmd := exec.CommandContext(context.Background(), s.epmd, "-address", strings.Join(addresses, ","), "-port", strconv.Itoa(s.epmdPort))
	cmd.Dir, cmd.Env = "/", s.root.environment()
	s.account.run(cmd)
	mapper, err := startProcess(cmd)
	if err != nil {
		tb.Fatalf("epmd: %v", err)
	}
	tb.Cleanup(mapper.kill)
}

// newBroker makes the files of a broker whose name ends in host and that talks to other
// nodes at address. It does not start it.
func (s *brokerSetup) newBroker(tb testing.TB, host, address string, settings []string) *Broker {
	tb.Helper()
	b := &Broker{tb: tb, root: s.root, account: s.account, programs: s.programs, host: host, port: FreePort(tb)}
	b.settings = slices.Concat([]string{
		"listeners.tcp.1 = " + b.Addr(),
		"disk_free_limit.absolute = 1MB",
	}, settings, s.settings)
	plugins := ""
	if s.management {
		b.web, plugins = FreePort(tb), "rabbitmq_management"
		b.settings = append(b.settings, "management.tcp.ip = 127.0.0.1", fmt.Sprintf("management.tcp.port = %d", b.web))
	}
	b.makeFolder()
	for name, content := range map[string]string{
		"rabbitmq.conf":     strings.Join(b.settings, "\n") + "\n",
		"rabbitmq-env.conf": "",
		"enabled_plugins":   "[" + plugins + "].\n",
		".erlang.cookie":    s.cookie,
	} {
		b.write(name, content)
	}
	b.env = s.environment(b, address, FreePort(tb))
	tb.Cleanup(func() {
		if b.vm != nil {
			b.Kill()
		}
	})
	return b
}

// makeFolder makes what the broker reads and writes. It is not in tb.TempDir, which
// only the test's own user can enter.
func (b *Broker) makeFolder() {
	b.tb.Helper()
	dir, err := b.root.makeFolder("tidings-rabbitmq-")
	if err != nil {
		b.tb.Fatal(err)
	}
	b.dir = dir
	b.tb.Cleanup(func() {
		if err := os.RemoveAll(b.root.outside(dir)); err != nil {
			b.tb.Errorf("data of the private RabbitMQ server: %v", err)
		}
	})
	if err := b.account.own(b.root.outside(dir)); err != nil {
		b.tb.Fatal(err)
	}
}

func (b *Broker) write(name, content string) {
	b.tb.Helper()
	path := b.root.outside(b.path(name))
	err := os.WriteFile(path, []byte(content), 0o400) // Erlang insists on it for the cookie
	if err = errors.Join(err, b.account.own(path)); err != nil {
		b.tb.Fatal(err)
	}
}

// environment returns a broker's environment without any setting of another broker,
// https://www.rabbitmq.com/docs/configure#supported-environment-variables.
func (s *brokerSetup) environment(b *Broker, address string, distPort int) []string {
	var env []string
	for _, setting := range s.root.environment() {
		if !strings.HasPrefix(setting, "RABBITMQ_") && !strings.HasPrefix(setting, "ERL_") {
			env = append(env, setting)
		}
	}
	ip := "{" + strings.ReplaceAll(address, ".", ",") + "}"
	return append(
		env,
		"HOME="+b.dir,
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"ERL_EPMD_PORT="+strconv.Itoa(s.epmdPort),
		// Other nodes are listened to, and called, from the node's own address.
		"ERL_FLAGS=-kernel inet_dist_use_interface "+ip+" inet_dist_connect_options [{ip,"+ip+"}]",
		"RABBITMQ_NODENAME="+b.node(),
		"RABBITMQ_USE_LONGNAME="+strconv.FormatBool(strings.Contains(b.host, ".")),
		"RABBITMQ_DIST_PORT="+strconv.Itoa(distPort),
		"RABBITMQ_MNESIA_BASE="+b.path("data"),
		"RABBITMQ_LOG_BASE="+b.path("log"),
		"RABBITMQ_LOGS="+b.path("broker.log"),
		"RABBITMQ_CONFIG_FILE="+b.path("rabbitmq.conf"),
		"RABBITMQ_ADVANCED_CONFIG_FILE="+b.path("advanced.config"),
		"RABBITMQ_CONF_ENV_FILE="+b.path("rabbitmq-env.conf"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+b.path("enabled_plugins"),
		// Makes the script become the Erlang VM instead of its parent, so that to kill
		// the process is to kill the broker.
		"RUNNING_UNDER_SYSTEMD=true",
	)
}

// command prepares one of RabbitMQ's own programs.
func (b *Broker) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(b.programs, name), args...)
	cmd.Dir = b.dir
	cmd.Env = b.env
	b.account.run(cmd)
	return cmd
}

// logTail returns the end of the broker's log.
func (b *Broker) logTail() string {
	const lines = 40
	data, err := os.ReadFile(b.root.outside(b.path("broker.log")))
	if errors.Is(err, fs.ErrNotExist) {
		return "it has written no log"
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
