// Package aftercommit lets what writes in a transaction run something once it is
// committed. Whoever runs the transaction puts a [List] into the context.
package aftercommit

import (
	"context"
	"sync"
)

type key struct{}

// List is what is to be done after the commit of one transaction.
type List struct {
	tx any

	mu  sync.Mutex // guards fns
	fns map[any]func()
}

// With returns ctx with a list for tx, a pointer.
func With(ctx context.Context, tx any) (context.Context, *List) {
	l := &List{tx: tx}
	return context.WithValue(ctx, key{}, l), l
}

// Add adds fn to the list of tx, once for each owner, and reports whether ctx has one.
// tx is compared, since a context may be used with another transaction as well.
func Add(ctx context.Context, tx, owner any, fn func()) bool {
	l, _ := ctx.Value(key{}).(*List)
	if l == nil || l.tx != tx {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fns == nil {
		l.fns = make(map[any]func())
	}
	l.fns[owner] = fn
	return true
}

// Run runs what was added.
func (l *List) Run() {
	l.mu.Lock()
	fns := l.fns
	l.fns = nil
	l.mu.Unlock()
	for _, fn := range fns {
		fn()
	}
}
