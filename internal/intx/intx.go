// Package intx has a context know the transaction that a handler runs in, for those who write
// to the same database: they write in it, and run something once it is committed.
package intx

import (
	"context"
	"database/sql"
	"sync"
)

type key struct{}

// Scope is a transaction that a context knows.
type Scope struct {
	tx   *sql.Tx
	db   *sql.DB
	file string // of SQLite, where other pools are the same database too

	mu  sync.Mutex // guards fns
	fns map[any]func()
}

// With returns ctx with tx, which is of db. file is that of SQLite, see [File], or "".
func With(ctx context.Context, tx *sql.Tx, db *sql.DB, file string) (context.Context, *Scope) {
	s := &Scope{tx: tx, db: db, file: file}
	return context.WithValue(ctx, key{}, s), s
}

// Tx returns the transaction of ctx if it is of that pool or file, or else nil.
func Tx(ctx context.Context, db *sql.DB, file string) *sql.Tx {
	s, _ := ctx.Value(key{}).(*Scope)
	if s == nil || s.db != db && (file == "" || s.file != file) {
		return nil
	}
	return s.tx
}

// File returns the file of a SQLite database, "" of one in memory.
func File(ctx context.Context, db *sql.DB) (file string, err error) {
	err = db.QueryRowContext(ctx, "select coalesce(file, '') from pragma_database_list where name = 'main'").Scan(&file)
	return file, err
}

// AfterCommit notes fn, to be run after the commit of tx, once for each owner. It reports
// whether tx is that of ctx: a context may be used with another transaction as well.
func AfterCommit(ctx context.Context, tx, owner any, fn func()) bool {
	s, _ := ctx.Value(key{}).(*Scope)
	if s == nil || any(s.tx) != tx {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fns == nil {
		s.fns = make(map[any]func())
	}
	s.fns[owner] = fn
	return true
}

// Committed runs what was noted.
func (s *Scope) Committed() {
	s.mu.Lock()
	fns := s.fns
	s.fns = nil
	s.mu.Unlock()
	for _, fn := range fns {
		fn()
	}
}
