package testserver

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
)

// Cluster is a RabbitMQ cluster that belongs to one test. Like [Broker], it is used from
// the test's goroutine, and its methods fail the test.
//
// Each node has an address of its own in 127.0.0.0/8, at which the other nodes reach it.
// Clients reach every node at 127.0.0.1.
type Cluster struct {
	tb    testing.TB
	nodes []*Broker
	cut   string // name of the packet filter's table, "" while nothing is isolated
}

// StartRabbitMQCluster starts n brokers of the same release that form a cluster, as
// [StartRabbitMQ] does. It skips the test unless a release is chosen, by [Release] or the
// environment, as make matrix does: clusters take minutes, and one of each release is enough.
//
// cluster_partition_handling is pause_minority; a line of [Settings] changes it. Releases
// that keep their metadata in Khepri ignore it.
func StartRabbitMQCluster(tb testing.TB, n int, options ...Option) *Cluster {
	tb.Helper()
	if runtime.GOOS != "linux" {
		missing(tb, "a private cluster needs Linux, where each node gets an address of its own in 127.0.0.0/8", "Linux")
	}
	if variable := RabbitMQServer.Variable(); len(options) == 0 && os.Getenv(variable) == "" {
		tb.Skipf("make matrix runs it on every release; %s=4.3 runs it here", variable)
	}
	s := newBrokerSetup(tb, options)
	c := &Cluster{tb: tb}
	settings := []string{"cluster_partition_handling = pause_minority"}
	network := fmt.Sprintf("127.%d.%d.", 64+rand.IntN(64), rand.IntN(256))
	var addresses []string
	for i := range n {
		address := fmt.Sprint(network, i+1)
		addresses = append(addresses, address)
		c.nodes = append(c.nodes, s.newBroker(tb, address, address, settings))
	}
	s.startPortMapper(tb, addresses...)
	tb.Cleanup(func() {
		if c.cut != "" {
			c.Heal()
		}
	})
	c.nodes[0].Start()
	for _, node := range c.nodes[1:] {
		node.Start()
		node.Ctl("stop_app")
		node.Ctl("join_cluster", c.nodes[0].node())
		node.Ctl("start_app")
		node.await()
	}
	return c
}

// Nodes returns the nodes of the cluster.
func (c *Cluster) Nodes() []*Broker { return c.nodes }

// URLs returns the URLs of all nodes.
func (c *Cluster) URLs() []string {
	var urls []string
	for _, node := range c.nodes {
		urls = append(urls, node.URL())
	}
	return urls
}

// Start starts nodes that are down and returns when all of them take connections. They
// start together: a node that was not the last to stop waits for others.
func (c *Cluster) Start(nodes ...*Broker) {
	c.tb.Helper()
	for _, node := range nodes {
		node.launch()
	}
	for _, node := range nodes {
		node.await()
	}
}

// Leader returns the node that leads a quorum queue, or has a classic one, in the vhost "/".
// It asks the node via, which has to be running. It is nil if no node does.
func (c *Cluster) Leader(via *Broker, queue string) *Broker {
	c.tb.Helper()
	for line := range strings.Lines(via.Ctl("list_queues", "name", "leader", "--no-table-headers")) {
		name, leader, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if name != queue {
			continue
		}
		for _, node := range c.nodes {
			if node.node() == leader {
				return node
			}
		}
	}
	return nil
}
