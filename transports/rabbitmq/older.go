package rabbitmq

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Arguments of queues that earlier versions of this package did not give, with the keys of
// policies that do the same.
const (
	disconnectedArg = "x-consumer-disconnected-timeout"
	timeoutArg      = "x-consumer-timeout"
)

// olderQueues are the queues that exist without some of these arguments, by name: which step
// of olderSteps fits them. A queue's arguments can't be changed, so they stay as they are.
type olderQueues map[string]int

// olderSteps are the arguments to leave out, in the order of trying. Brokers compare only
// the arguments that they know.
var olderSteps = [][]string{nil, {disconnectedArg}, {timeoutArg}, {disconnectedArg, timeoutArg}}

// args returns the arguments that a queue is to be declared with.
func (o olderQueues) args(queue string, args amqp.Table) amqp.Table {
	for _, arg := range olderSteps[o[queue]] {
		delete(args, arg)
	}
	return args
}

// declareAsOlder reports whether to declare a subscription again, after an error, because
// the queue that the error names may have been made by an earlier version.
func (c *consumer) declareAsOlder(err error) bool {
	wrong, ok := errors.AsType[*TopologyError](err)
	if !ok || !isCode(err, amqp.PreconditionFailed) {
		return false
	}
	full := c.queueArgs()[wrong.Name]
	for step := c.older[wrong.Name] + 1; step < len(olderSteps); step++ {
		if hasAll(full, olderSteps[step]) {
			c.older[wrong.Name] = step
			return true
		}
	}
	delete(c.older, wrong.Name) // something else differs
	return false
}

// queueArgs returns the arguments of the subscription's durable queues.
func (c *consumer) queueArgs() map[string]amqp.Table {
	return map[string]amqp.Table{c.t.names.queue(c.sub.Name): c.t.subscriptionArgs(c.sub), c.t.names.poison(c.sub.Name): c.t.poisonArgs()}
}

func hasAll(args amqp.Table, names []string) bool {
	for _, name := range names {
		if _, ok := args[name]; !ok {
			return false
		}
	}
	return true
}

// warnOfOlder says, once, how to give the queues what they lack.
func (c *consumer) warnOfOlder() {
	definition := make(map[string]any)
	for queue, args := range c.queueArgs() {
		for _, arg := range olderSteps[c.older[queue]] {
			definition[strings.TrimPrefix(arg, "x-")] = args[arg]
		}
	}
	if len(definition) == 0 || c.warnedOfOlder {
		return
	}
	c.warnedOfOlder = true
	queue := c.t.names.queue(c.sub.Name)
	text, _ := json.Marshal(definition) // numbers
	policy := fmt.Sprintf("rabbitmqctl set_policy --vhost '%s' --apply-to queues 'tidings.%s' '^%s(%s)?$' '%s'",
		c.t.con.login.vhost, queue, regexp.QuoteMeta(queue), poisonSuffix, text)
	c.log.Warn("the queue was made by an earlier version, without its timeouts; a policy gives it the same", slog.String("policy", policy))
}
