package eventstore

import (
	"context"
	"errors"
	"fmt"
)

// Node is an event with those that the handling of it has published.
type Node struct {
	Event   *Event // nil of one that the store does not have, or has no more
	ID      string
	Asked   bool    // it is the one that the tree was asked for
	Effects []*Node // in the order of their places
}

// Tree is the chain of causes of an event.
type Tree struct {
	Root      *Node // the first cause, or what is known of it
	Truncated bool  // there were more events than the tree takes
}

// maxTree bounds what a tree loads.
const maxTree = 10_000

// Tree returns all that the first cause of an event has led to, by causation ids, among the
// events of its correlation id. An empty source means any. A cause that the store does not
// have is a node without an event. It takes 10,000 events at most, and is quick with
// [Config.Index].
func (s *Store) Tree(ctx context.Context, source, id string) (Tree, error) {
	asked, err := s.Get(ctx, source, id)
	if err != nil {
		return Tree{}, err
	}
	nodes := map[string]*Node{asked.Metadata.ID: {Event: &asked, ID: asked.Metadata.ID, Asked: true}}
	order := []string{asked.Metadata.ID}
	var tree Tree
	correlation := asked.Metadata.CorrelationID
	if correlation == "" { // it may be what the correlation id of others is the id of
		correlation = asked.Metadata.ID
	} else {
		order = order[:0]
	}
	for e, err := range s.All(ctx, Query{CorrelationID: correlation}) {
		if err != nil {
			return Tree{}, err
		}
		if len(order) == maxTree {
			tree.Truncated = true
			break
		}
		id := e.Metadata.ID
		if known := nodes[id]; known != nil && !known.Asked { // a second copy
			continue
		} else if known == nil {
			nodes[id] = &Node{Event: &e, ID: id}
		}
		order = append(order, id)
	}
	if err := s.addRoot(ctx, correlation, nodes, &order); err != nil {
		return Tree{}, err
	}
	parent := make(map[string]string) // of those that have one, without circles
	for _, id := range order {
		cause := nodes[id].Event.Metadata.CausationID
		if cause == "" || parent[id] != "" || leads(parent, cause, id) {
			continue
		}
		if nodes[cause] == nil {
			nodes[cause] = &Node{ID: cause}
		}
		parent[id] = cause
		nodes[cause].Effects = append(nodes[cause].Effects, nodes[id])
	}
	root := asked.Metadata.ID
	for parent[root] != "" {
		root = parent[root]
	}
	tree.Root = nodes[root]
	return tree, nil
}

// addRoot adds the event that the correlation id is the id of, which may have none itself.
func (s *Store) addRoot(ctx context.Context, correlation string, nodes map[string]*Node, order *[]string) error {
	if nodes[correlation] != nil {
		return nil
	}
	e, err := s.Get(ctx, "", correlation)
	switch {
	case errors.Is(err, ErrNotFound): // most often it is an id of another kind, such as a request's
		return nil
	case err != nil:
		return fmt.Errorf("eventstore: the first cause: %w", err)
	}
	nodes[correlation] = &Node{Event: &e, ID: correlation}
	*order = append(*order, correlation)
	return nil
}

// leads reports whether id is among the causes of cause: a circle, that only a mistake or
// malice can make.
func leads(parent map[string]string, cause, id string) bool {
	for ; cause != ""; cause = parent[cause] {
		if cause == id {
			return true
		}
	}
	return false
}
