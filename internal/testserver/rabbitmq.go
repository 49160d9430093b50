package testserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const rabbitMQPackage = "apt-get install rabbitmq-server"

// Broker is a RabbitMQ server that belongs to one test: its ports, node name, data and
// log are its own, whatever else runs on the machine.
//
// Its methods fail the test when they can't do what they are for. They are called one
// at a time, from the test's goroutine.
type Broker struct {
	tb       testing.TB
	programs string // folder of rabbitmq-server and rabbitmqctl
	account  account
	dir      string
	env      []string
	port     int
	web      int    // port of the management API, 0 without that plugin
	plugins  string // as Erlang terms
	node     string
	vm       *process // nil while it is down
}

const (
	// startTimeout is how long a broker may take to start: two seconds on an idle
	// machine, and many times that on a busy one.
	startTimeout = 2 * time.Minute

	ctlTimeout = time.Minute
)

// managementPlugin is the plugin of RabbitMQ's HTTP API.
const managementPlugin = "rabbitmq_management"

// StartRabbitMQ starts a broker from the installed programs, as the service's own user
// when the test runs as root. It is gone, with its data, when the test ends.
func StartRabbitMQ(tb testing.TB) *Broker {
	tb.Helper()
	return startRabbitMQ(tb)
}

// StartRabbitMQWithManagement starts a broker whose HTTP API answers at
// [Broker.ManagementURL].
func StartRabbitMQWithManagement(tb testing.TB) *Broker {
	tb.Helper()
	return startRabbitMQ(tb, managementPlugin)
}

func startRabbitMQ(tb testing.TB, plugins ...string) *Broker {
	tb.Helper()
	programs, epmd, err := findRabbitMQPrograms()
	if err != nil {
		missing(tb, fmt.Sprintf("a private RabbitMQ server can't be started: %v", err), rabbitMQPackage)
	}
	b := &Broker{tb: tb, programs: programs, account: serviceAccount("rabbitmq"), port: FreePort(tb), plugins: strings.Join(plugins, ",")}
	if slices.Contains(plugins, managementPlugin) {
		b.web = FreePort(tb)
	}
	b.node = fmt.Sprintf("tidings-%d@localhost", b.port)
	b.makeFolder()

	// A port mapper of its own, in the foreground: the broker would otherwise start one
	// that outlives the test.
	epmdPort := strconv.Itoa(FreePort(tb))
	b.env = b.environment(epmdPort, strconv.Itoa(FreePort(tb)))
	mapper, err := startProcess(b.command(context.Background(), epmd, "-address", "127.0.0.1", "-port", epmdPort))
	if err != nil {
		tb.Fatalf("epmd: %v", err)
	}
	tb.Cleanup(mapper.kill)
	tb.Cleanup(func() {
		if b.vm != nil {
			b.Kill()
		}
	})
	b.Start()
	return b
}

// findRabbitMQPrograms returns the folder of RabbitMQ's own scripts, and the path of
// Erlang's port mapper.
func findRabbitMQPrograms() (programs, epmd string, err error) {
	epmd, err = exec.LookPath("epmd")
	if err != nil {
		return "", "", err
	}
	// Debian's programs in PATH are wrappers that change the user and the folder; these
	// are what they call.
	const debian = "/usr/lib/rabbitmq/bin"
	if _, err := os.Stat(filepath.Join(debian, "rabbitmq-server")); err == nil {
		return debian, epmd, nil
	}
	server, err := exec.LookPath("rabbitmq-server")
	if err != nil {
		return "", "", err
	}
	if strings.HasSuffix(server, ".bat") {
		return "", "", errors.New("not supported on Windows")
	}
	return filepath.Dir(server), epmd, nil
}

// makeFolder makes what the broker reads and writes. It is not in tb.TempDir, which
// only the test's own user can enter.
func (b *Broker) makeFolder() {
	b.tb.Helper()
	dir, err := os.MkdirTemp("", "tidings-rabbitmq-")
	if err != nil {
		b.tb.Fatal(err)
	}
	b.tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			b.tb.Errorf("data of the private RabbitMQ server: %v", err)
		}
	})
	b.dir = dir
	config := fmt.Sprintf("listeners.tcp.1 = 127.0.0.1:%d\ndisk_free_limit.absolute = 1MB\n", b.port)
	if b.web != 0 {
		config += fmt.Sprintf("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = %d\n", b.web)
	}
	for name, content := range map[string]string{
		"rabbitmq.conf":     config,
		"rabbitmq-env.conf": "",
		"enabled_plugins":   "[" + b.plugins + "].\n",
		".erlang.cookie":    "TIDINGS" + strconv.Itoa(b.port),
	} {
		b.write(name, content)
	}
	if err := b.account.own(dir); err != nil {
		b.tb.Fatal(err)
	}
}

func (b *Broker) write(name, content string) {
	b.tb.Helper()
	path := filepath.Join(b.dir, name)
	err := os.WriteFile(path, []byte(content), 0o400) // Erlang insists on it for the cookie
	if err = errors.Join(err, b.account.own(path)); err != nil {
		b.tb.Fatal(err)
	}
}

// environment returns this process's without any setting of another broker, and with
// the settings of this one, https://www.rabbitmq.com/docs/configure#supported-environment-variables.
func (b *Broker) environment(epmdPort, distPort string) []string {
	var env []string
	for _, setting := range os.Environ() {
		if !strings.HasPrefix(setting, "RABBITMQ_") && !strings.HasPrefix(setting, "ERL_") {
			env = append(env, setting)
		}
	}
	in := func(name string) string { return filepath.Join(b.dir, name) }
	return append(
		env,
		"HOME="+b.dir,
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"ERL_EPMD_PORT="+epmdPort,
		"ERL_FLAGS=-kernel inet_dist_use_interface {127,0,0,1}",
		"RABBITMQ_NODENAME="+b.node,
		"RABBITMQ_DIST_PORT="+distPort,
		"RABBITMQ_MNESIA_BASE="+in("data"),
		"RABBITMQ_LOG_BASE="+in("log"),
		"RABBITMQ_LOGS="+in("broker.log"),
		"RABBITMQ_CONFIG_FILE="+in("rabbitmq.conf"),
		"RABBITMQ_ADVANCED_CONFIG_FILE="+in("advanced.config"),
		"RABBITMQ_CONF_ENV_FILE="+in("rabbitmq-env.conf"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+in("enabled_plugins"),
		// Makes the script become the Erlang VM instead of its parent, so that to kill
		// the process is to kill the broker.
		"RUNNING_UNDER_SYSTEMD=true",
	)
}

func (b *Broker) command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = b.dir
	cmd.Env = b.env
	b.account.run(cmd)
	return cmd
}

// Start starts a broker that was stopped or killed, on the data that it had, and
// returns when it takes connections.
func (b *Broker) Start() {
	b.tb.Helper()
	if b.vm != nil {
		b.tb.Fatal("the private RabbitMQ server is running already")
	}
	vm, err := startProcess(b.command(context.Background(), filepath.Join(b.programs, "rabbitmq-server")))
	if err != nil {
		b.tb.Fatalf("rabbitmq-server: %v", err)
	}
	b.vm = vm
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.tb.Context()), startTimeout)
	defer cancel()
	if err := b.awaitListener(ctx); err != nil {
		b.tb.Fatalf("the private RabbitMQ server has not started: %v\n%s", err, b.logTail())
	}
}

// awaitListener waits until the broker answers. It listens last of all, when its data
// is recovered.
func (b *Broker) awaitListener(ctx context.Context) error {
	const interval = 50 * time.Millisecond
	again := time.NewTicker(interval)
	defer again.Stop()
	for {
		err := rabbitMQ.answersAt(ctx, b.Addr())
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-b.vm.ended:
			return errors.New("it has ended")
		case <-ctx.Done():
			return err
		}
	}
}

// logTail returns the end of the broker's log.
func (b *Broker) logTail() string {
	const lines = 40
	data, err := os.ReadFile(filepath.Join(b.dir, "broker.log"))
	if errors.Is(err, fs.ErrNotExist) {
		return "it has written no log"
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Addr returns the host and port of the broker, for a proxy in front of it. They stay
// the same when it is started again.
func (b *Broker) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port)) }

// URL returns the broker's URL, with the user guest and the vhost "/".
func (b *Broker) URL() string { return "amqp://guest:guest@" + b.Addr() + "/" }

// ManagementURL returns the URL of the HTTP API, with the user guest. It is "" without the
// plugin. It answers about when the broker does, and not always before.
func (b *Broker) ManagementURL() string {
	if b.web == 0 {
		return ""
	}
	return "http://guest:guest@" + net.JoinHostPort("127.0.0.1", strconv.Itoa(b.web))
}

// Kill ends the broker with SIGKILL, so that it has no chance to write anything down,
// and returns when it is gone.
func (b *Broker) Kill() {
	b.tb.Helper()
	if b.vm == nil {
		b.tb.Fatal("the private RabbitMQ server is not running")
	}
	b.vm.kill()
	b.vm = nil
}

// Stop shuts the broker down as an operator does, and returns when it is gone.
func (b *Broker) Stop() {
	b.tb.Helper()
	b.Ctl("stop")
	<-b.vm.ended
	b.vm = nil
}

// Ctl runs rabbitmqctl for this broker, without its headings, and returns what it
// prints. A call takes about a second.
func (b *Broker) Ctl(args ...string) string {
	b.tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.tb.Context()), ctlTimeout)
	defer cancel()
	args = append([]string{"--silent", "--node", b.node}, args...)
	out, err := b.command(ctx, filepath.Join(b.programs, "rabbitmqctl"), args...).CombinedOutput()
	if err != nil {
		b.tb.Fatalf("rabbitmqctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
