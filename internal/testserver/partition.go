package testserver

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// Isolate cuts nodes off from the rest of the cluster: packets between them are dropped, as
// by a network that is broken. The nodes still reach each other, and clients reach all.
func (c *Cluster) Isolate(nodes ...*Broker) {
	c.tb.Helper()
	if c.cut != "" {
		c.tb.Fatal("the cluster is partitioned already")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		missing(c.tb, "a cluster can't be partitioned without nft", "apt-get install nftables")
	}
	var inside, outside []string
	for _, node := range c.nodes {
		if slices.Contains(nodes, node) {
			inside = append(inside, node.host)
		} else {
			outside = append(outside, node.host)
		}
	}
	table := "tidings-" + strings.ReplaceAll(c.nodes[0].host, ".", "-")
	a, b := strings.Join(inside, ","), strings.Join(outside, ",")
	c.filter(fmt.Sprintf(`table ip %s {
		chain cut {
			type filter hook output priority 0;
			ip saddr { %s } ip daddr { %s } drop
			ip saddr { %s } ip daddr { %s } drop
		}
	}`, table, a, b, b, a))
	c.cut = table
}

// Heal ends an Isolate.
func (c *Cluster) Heal() {
	c.tb.Helper()
	c.filter("delete table ip " + c.cut)
	c.cut = ""
}

func (c *Cluster) filter(rules string) {
	c.tb.Helper()
	cmd := exec.CommandContext(context.Background(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		c.tb.Fatalf("nft: %v\n%s", err, out)
	}
}
