package amqp

import (
	"flag"
	"testing"

	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/transporttest"
)

var update = flag.Bool("update", false, "write this transport's section of docs/guarantees.md")

func TestConformance(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	const maxMessageBytes = 1 << 20
	results := transporttest.Run(t,
		transporttest.Harness{
			Open: func(t *testing.T) transports.Transport {
				t.Helper()
				return ns.open(t, Config{AMQP: DurablePubSub(ns.uri), Ephemeral: true, MaxMessageBytes: maxMessageBytes})
			},
			Prefix: ns.prefix,
		},
		transporttest.Features{
			MaxMessageBytes: maxMessageBytes,
			Lacks: map[transporttest.Feature]string{
				transporttest.AddedTopics:    "each topic has a queue of its own, and watermill-amqp can't list those of a subscription",
				transporttest.Patterns:       "each topic is an exchange of its own",
				transporttest.NackPassing:    "a nacked message returns to the head of its queue: at the concurrency 1, those behind it wait",
				transporttest.Ordered:        "the queues have no single active consumer; settings of your own can give them one",
				transporttest.BackPressure:   "the queues have no bound",
				transporttest.Reconnect:      "watermill-amqp reconnects, but Publish fails meanwhile instead of waiting",
				transporttest.BatchPublish:   "a Watermill publisher takes one topic at a time; the bus publishes run by run",
				transporttest.DelayedPublish: "Watermill has no delays",
				transporttest.Requeue:        "Watermill has no delays; the bus waits in place",
				transporttest.PoisonQueue:    "Watermill has none; the bus publishes to the topic `poison.<subscription>`",
				transporttest.Removal:        "Watermill can't delete queues",
				transporttest.Ping:           "Watermill can't be asked",
				transporttest.Depth:          "Watermill can't be asked",
				transporttest.DepthDetail:    "Watermill can't be asked",
				transporttest.LargeMetadata:  "the headers must fit into a frame of 128 KiB; larger ones are refused",
			},
		})
	results.CheckGuarantees(t, "../../../docs/guarantees.md", "watermill/amqp", *update)
}
