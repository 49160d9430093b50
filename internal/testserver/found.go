package testserver

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// answerTimeout is how long a server may take to answer. One on this machine takes
// milliseconds, but a busy machine may not.
const answerTimeout = 5 * time.Second

// kind is a sort of server, and how to tell that one is there.
type kind struct {
	name     string
	variable string // of the environment, with the server's URL
	standard string // URL where it is looked for otherwise
	port     string // of a URL that has none

	// greet says whether it is such a server that answers, without logging in.
	greet    func(conn net.Conn) error
	commands []string // that provide one
}

var (
	rabbitMQ = kind{
		name:     "RabbitMQ server",
		variable: "RABBITMQ_URL",
		standard: "amqp://guest:guest@127.0.0.1:5672/",
		port:     "5672",
		greet:    greetAMQP,
		commands: []string{"docker compose up -d rabbitmq", rabbitMQPackage},
	}
	postgres = kind{
		name:     "PostgreSQL server",
		variable: "POSTGRES_URL",
		standard: "postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable",
		port:     "5432",
		greet:    greetPostgres,
		commands: []string{"apt-get install postgresql"},
	}
	mySQL = kind{
		name:     "MySQL or MariaDB server",
		variable: "MYSQL_URL",
		standard: "mysql://root@127.0.0.1:3306/mysql",
		port:     "3306",
		greet:    greetMySQL,
		commands: []string{"apt-get install mariadb-server"},
	}
)

// RabbitMQ returns the URL of a running broker: RABBITMQ_URL, or that of guest on this
// machine. Of a cluster it is the first node's.
func RabbitMQ(tb testing.TB) string {
	tb.Helper()
	return rabbitMQ.find(tb)[0]
}

// RabbitMQNodes returns the URLs of all nodes of a running broker: RABBITMQ_URL separates
// them by spaces.
func RabbitMQNodes(tb testing.TB) []string {
	tb.Helper()
	return rabbitMQ.find(tb)
}

// Postgres returns the URL of a running PostgreSQL server: POSTGRES_URL, or that of the
// user postgres on this machine.
func Postgres(tb testing.TB) string {
	tb.Helper()
	return postgres.find(tb)[0]
}

// MySQL returns the URL of a running MySQL or MariaDB server: MYSQL_URL, or that of the
// user root on this machine.
func MySQL(tb testing.TB) string {
	tb.Helper()
	return mySQL.find(tb)[0]
}

func (k kind) find(tb testing.TB) []string {
	tb.Helper()
	addresses := strings.Fields(cmp.Or(strings.TrimSpace(os.Getenv(k.variable)), k.standard))
	for _, address := range addresses {
		if err := k.answers(context.WithoutCancel(tb.Context()), address); err != nil { // clean-up asks too, when that context has ended
			missing(tb, fmt.Sprintf("no %s answers (%v); %s can name another", k.name, err, k.variable), k.commands...)
		}
	}
	return addresses
}

// answers says whether such a server is at a URL. Its errors do not quote the URL,
// which may have a password.
func (k kind) answers(ctx context.Context, address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("%s is no URL", k.variable)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return k.answersAt(ctx, net.JoinHostPort(cmp.Or(u.Hostname(), "127.0.0.1"), cmp.Or(u.Port(), k.port)))
}

func (k kind) answersAt(ctx context.Context, hostPort string) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", hostPort)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is sent that could be lost
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if err := k.greet(conn); err != nil {
		return fmt.Errorf("%s: %w", hostPort, err)
	}
	return nil
}

var errOther = errors.New("something else answers")

// greetAMQP sends the protocol header of AMQP 0-9-1 (section 4.2.2); a broker that
// speaks it answers with a method frame of channel 0, and any other with its own
// header, or not at all.
func greetAMQP(conn net.Conn) error {
	if _, err := conn.Write([]byte("AMQP\x00\x00\x09\x01")); err != nil {
		return err
	}
	var frame [3]byte
	if _, err := io.ReadFull(conn, frame[:]); err != nil {
		return err
	}
	if frame != [3]byte{1, 0, 0} {
		return errOther
	}
	return nil
}

// greetPostgres asks for TLS (protocol 3.0, SSLRequest), which every server answers
// with one byte, whatever its settings.
func greetPostgres(conn net.Conn) error {
	const sslRequest = 80877103
	request := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, sslRequest)
	if _, err := conn.Write(request); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	if answer[0] != 'S' && answer[0] != 'N' {
		return errOther
	}
	return nil
}

// greetMySQL reads the server's greeting: a packet of a length of three bytes and the
// number 0, that begins with the protocol's version, 10.
func greetMySQL(conn net.Conn) error {
	var greeting [5]byte
	if _, err := io.ReadFull(conn, greeting[:]); err != nil {
		return err
	}
	if greeting[3] != 0 || greeting[4] != 10 {
		return errOther
	}
	return nil
}
