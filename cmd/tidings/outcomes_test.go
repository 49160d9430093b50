package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// outcome is a run of the program, and how it ends.
type outcome struct {
	args string // $MANAGEMENT and $DIR stand for what they are of the backend
	want int
	says string // in what it prints
}

// outcomesOfAll are for every backend. They begin with a subscription shop.mail to
// order.created that holds nothing, and has the poisoned events refused-1 to refused-3.
// $ALL makes the broker list its subscriptions.
var outcomesOfAll = []outcome{
	{"", 0, "Operate the events"},
	{"nonsense", 2, "has no command"},
	{"help", 0, "Operate the events"},
	{"help poison list", 0, "fingerprint of a fault"},
	{"help nonsense", 2, "has no command"},
	{"help poison nonsense", 2, "has no command"},
	{"completion bash", 0, "complete"},
	{"completion", 2, "needs one of the commands"},
	{"completion nonsense", 2, "has no command"},

	{"migrate", 0, "up to date"},
	{"migrate now", 2, "unknown command"},

	{"health", 0, "pass"},
	{"health --max-poisoned 3 -s shop.mail", 0, "pass"},
	{"health --max-poisoned 2 -s shop.mail", 1, "shop.mail has 3"},
	{"health --max-poisoned 0 -s shop.nobody", 1, "no such subscription"},
	{"health --max-poisoned -1", 2, "takes 0 or more"},
	{"health -s shop.mail", 2, "--max-poisoned"},

	{"stats -s shop.mail", 0, "shop.mail"},
	{"stats -s shop.mail -s shop.nobody", 1, "no such subscription"},
	{"stats shop.mail", 2, "unknown command"},

	{"subscriptions list $ALL", 0, "order.created"},
	{"subscriptions list shop.mail", 2, "unknown command"},
	{"topology $ALL", 0, "shop.mail"},
	{"topology $ALL --desired $DIR/shop.json", 0, "create"},
	{"topology --desired $DIR/nothing.json", 2, "no such file"},

	{"publish order.created --id one", 0, "one"},
	{"publish order.created --data {", 2, "not JSON"},
	{"publish --events $DIR/events.jsonl", 0, "two\nthree"},
	{"publish --events $DIR/bad.jsonl", 1, "1 event published before"},
	{"publish --events $DIR/empty.jsonl", 1, "there is no event in"},
	{"publish --events $DIR/nothing.jsonl", 2, "no such file"},

	{"tail --for 10ms", 0, ""},
	{"tail --for 10ms --count 1", 1, "ended after 0 events of --count 1"},
	{"tail --for -1s", 2, "can't be negative"},

	{"poison list -s shop.mail", 0, "refused"},
	{"poison list -s shop.nobody", 1, "no such subscription"},
	{"poison list --limit -1", 2, "--limit"},
	{"poison show -s shop.mail refused-1", 0, "refused-1"},
	{"poison show -s shop.mail nothing", 1, "tidings poison list --events -s shop.mail"},
	{"poison show", 2, "accepts 1 arg"},

	{"subscriptions remove shop.nobody", 1, "no such subscription"},
	{"subscriptions remove shop.mail --dry-run", 1, "--force removes it"},
	{"subscriptions remove shop.mail", 1, "--force removes it"},
	{"subscriptions remove", 2, "requires at least 1 arg"},
	{"subscriptions remove shop.mail --force --dry-run", 0, "no"},
	{"subscriptions remove shop.mail shop.mail --force", 0, "yes"}, //nolint:dupword // the name is given twice
	{"subscriptions remove shop.mail --force", 1, "no such subscription"},
	{"subscriptions list $ALL -o json", 0, "["},
}

// outcomesOfDatabases are for the log in a database, after the others, with an outbox to
// "rabbit", in which the event refused-1 is parked.
var outcomesOfDatabases = []outcome{
	{"migrate --print", 0, "create"},
	{"health --max-outbox-age 1h", 0, "pass"},
	{"health --max-outbox-age 1ns", 1, "the oldest has waited"},
	{"health --max-outbox-age -1s", 2, "takes a duration"},

	{"events list --type order.*", 0, "order.created"},
	{"events list --type nothing", 0, "STORED"},
	{"events list --since yesterday", 2, "it takes a time"},
	{"events show one", 0, "order.created"},
	{"events show nothing", 1, "no such event"},
	{"events show", 2, "accepts 1 arg"},
	{"events tree one", 0, "one"},
	{"events tree nothing", 1, "no such event"},
	{"events tree", 2, "accepts 1 arg"},
	{"events replay -s shop.new --declare order.* --type order.* --id again", 0, "again"},
	{"events replay -s shop.nobody --type order.*", 1, "no such subscription"},
	{"events replay -s shop.new --type nothing", 1, "no event in the range"},
	{"events replay", 2, "--subscription is missing"},
	{"events replay -s shop.other --id again", 2, "is one to shop.new"},

	{"outbox status", 0, "rabbit"},
	{"outbox status rabbit", 2, "unknown command"},
	{"outbox retry rabbit refused-1 --dry-run", 0, "outbox.rabbit"},
	{"outbox retry rabbit nothing", 1, "tidings poison list --events -s outbox.rabbit"},
	{"outbox retry nowhere --all", 1, "tidings outbox status"},
	{"outbox retry rabbit", 2, "which events"},
}

// outcomesOfRabbitMQ are before the others: RabbitMQ can't list, and has no stored events.
var outcomesOfRabbitMQ = []outcome{
	{"subscriptions list", 2, "give --management-url"},
	{"stats", 2, "--subscription"},
	{"poison list", 2, "--subscription"},
	{"health --max-poisoned 0", 2, "--subscription"},
	{"topology", 2, "--desired"},
	{"topology --desired $DIR/shop.json", 0, "unknown"},
	{"topology $ALL --desired $DIR/conflict.json", 1, "1 subscription in conflict"},
	{"stats --management-url http://guest:guest@127.0.0.1:1", 1, "check --management-url"},
	{"publish customer.created", 1, "the broker has dropped the event"},
	{"publish --events $DIR/other.jsonl", 1, "has dropped 1 event of the types customer.created"},
	{"events list", 2, "must be that one"},
	{"outbox status", 2, "is in a database"},
	{"health --max-outbox-age 1m", 2, "is for databases"},
	{"migrate --print", 2, "is for databases"},
}

func TestOutcomesSQLite(t *testing.T) {
	t.Parallel()
	testOutcomes(t, sqliteBackend, outcomesOfAll, outcomesOfDatabases)
}

func TestOutcomesPostgres(t *testing.T) {
	t.Parallel()
	testOutcomes(t, postgresBackend(t), outcomesOfAll, outcomesOfDatabases)
}

func TestOutcomesRabbitMQ(t *testing.T) {
	t.Parallel()
	testOutcomes(t, rabbitmqBackend(t), outcomesOfRabbitMQ, outcomesOfAll)
}

func testOutcomes(t *testing.T, b backend, tables ...[]outcome) {
	t.Helper()
	dir := t.TempDir()
	address := b.transport(t, dir)
	prepareOutcomes(t, address, dir)
	management := ""
	if url := b.management(t); url != "" {
		management = "--management-url=" + url
	}
	var covered [exitUsage + 1]map[string]bool
	for i := range covered {
		covered[i] = make(map[string]bool)
	}
	for _, table := range tables {
		for _, o := range table {
			args := strings.Fields(strings.NewReplacer("$ALL", management, "$DIR", filepath.ToSlash(dir)).Replace(o.args))
			cmd, _, err := (&app{}).root().Find(args)
			if err != nil {
				cmd = (&app{}).root()
			}
			var stdout, stderr bytes.Buffer
			getenv := func(name string) string {
				if name == "TIDINGS_TRANSPORT" {
					return address
				}
				return ""
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			status := run(ctx, append(args, "--timeout=1m"), getenv, strings.NewReader(""), &stdout, &stderr)
			cancel()
			covered[o.want][cmd.CommandPath()] = true
			if status != o.want || !strings.Contains(stdout.String()+stderr.String(), o.says) {
				t.Errorf("tidings %s: status %d, want %d and %q\n%s%s", o.args, status, o.want, o.says, stdout.String(), stderr.String())
			}
			if (status != 0) != strings.Contains("\n"+stderr.String(), "\ntidings: ") {
				t.Errorf("tidings %s: status %d, and standard error is\n%s", o.args, status, stderr.String())
			}
			checkHints(t, cmd, stderr.String())
		}
	}
	for _, cmd := range leaves((&app{}).root()) {
		path := cmd.CommandPath()
		switch {
		case strings.HasPrefix(path, "tidings completion"), path == "tidings help": // of cobra
		case b.name == "rabbitmq" && (strings.HasPrefix(path, "tidings events") || strings.HasPrefix(path, "tidings outbox")):
		case path == "tidings poison retry", path == "tidings poison discard": // in scripts
		default:
			for status, has := range covered {
				mayNotFail := strings.HasSuffix(path, " list") || path == "tidings topology" || path == "tidings migrate" || path == "tidings outbox status"
				if !has[path] && (status != exitFault || !mayNotFail) {
					t.Errorf("no outcome of %q has the status %d", path, status)
				}
			}
		}
	}
}

func leaves(cmd *cobra.Command) (all []*cobra.Command) {
	for _, c := range cmd.Commands() {
		if c.HasSubCommands() {
			all = append(all, leaves(c)...)
		} else {
			all = append(all, c)
		}
	}
	return all
}

func prepareOutcomes(t *testing.T, address, dir string) {
	t.Helper()
	for name, content := range map[string]string{
		"shop.json":     `{"service":"shop","subscriptions":[{"name":"shop.mail","topics":["order.created"]},{"name":"shop.new","topics":["a"]}]}`,
		"conflict.json": `{"service":"shop","subscriptions":[{"name":"shop.mail","topics":["order.created"],"arguments":{"x-queue-type":"classic"}}]}`,
		"empty.jsonl":   "\n",
		"events.jsonl": `{"specversion":"1.0","id":"two","source":"test","type":"order.created","data":{}}
{"specversion":"1.0","id":"three","source":"test","type":"order.created","data":{}}`,
		"bad.jsonl": `{"specversion":"1.0","id":"four","source":"test","type":"order.created","data":{}}
{"specversion":"1.0","id":"five"}`,
		"other.jsonl": `{"specversion":"1.0","id":"six","source":"test","type":"customer.created","data":{}}
{"specversion":"1.0","id":"seven","source":"test","type":"order.created","data":{}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := transports.Open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bus.New(tr, bus.Config{Source: "test", Service: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	bus.SubscribeRaw(b, "mail", []string{"order.created"}, func(context.Context, bus.Raw) error { return nil })
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	parked := []string{"shop.mail"}
	if log, ok := tr.(*tsql.Transport); ok {
		sub := transports.Subscription{Name: outbox.SubscriptionOf("rabbit"), Topics: []string{"order.#"}, Concurrency: 1}
		if err := log.DeclareSubscription(t.Context(), sub, tsql.FromBeginning); err != nil {
			t.Fatal(err)
		}
		parked = append(parked, sub.Name)
	}
	for _, name := range parked {
		if err := poisonEvents(tr, name, 3, "refused"); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
}

var (
	hintedCommand = regexp.MustCompile(`\btidings( [a-z]+)+`)
	hintedFlag    = regexp.MustCompile(`(?:^|[\s(])--([a-z][a-z-]*)`)
)

// checkHints reports commands and flags in a message of cmd that there are not. A flag
// that follows a command, before the next semicolon, is that command's.
func checkHints(t *testing.T, cmd *cobra.Command, text string) {
	t.Helper()
	for part := range strings.SplitSeq(text, ";") {
		on := cmd
		if words := strings.Fields(hintedCommand.FindString(part)); len(words) > 0 {
			found := findCommand(cmd.Root(), words[1:])
			if found == cmd.Root() {
				if words[1] != "has" { // tidings has no command …
					t.Errorf("there is no command %q: %s", strings.Join(words, " "), text)
				}
				continue
			}
			on = found
		}
		for _, flag := range hintedFlag.FindAllStringSubmatch(part, -1) {
			if !hasFlag(on, flag[1]) {
				t.Errorf("%q has no --%s: %s", on.CommandPath(), flag[1], text)
			}
		}
	}
}

// findCommand follows words as far as they are commands.
func findCommand(cmd *cobra.Command, words []string) *cobra.Command {
	if len(words) > 0 {
		for _, c := range cmd.Commands() {
			if c.Name() == words[0] {
				return findCommand(c, words[1:])
			}
		}
	}
	return cmd
}
