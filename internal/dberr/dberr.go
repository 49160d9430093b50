// Package dberr tells the errors of databases apart, for all drivers and without importing any.
package dberr

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"strings"
	"time"
)

// Code returns the SQLSTATE and the vendor's number of a driver's error, without the
// drivers: pgx and lib/pq have a method for the first, go-sql-driver/mysql a field for
// the second, and modernc.org/sqlite a method.
func Code(err error) (state string, number int) {
	var stated interface{ SQLState() string }
	if errors.As(err, &stated) {
		state = stated.SQLState()
	}
	var coded interface{ Code() int }
	if errors.As(err, &coded) {
		return state, coded.Code()
	}
	for ; err != nil; err = errors.Unwrap(err) {
		v := reflect.ValueOf(err)
		if v.Kind() == reflect.Pointer && !v.IsNil() && v.Elem().Kind() == reflect.Struct {
			if f := v.Elem().FieldByName("Number"); f.IsValid() && f.Kind() == reflect.Uint16 {
				return state, int(f.Uint())
			}
		}
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				if s, n := Code(e); s != "" || n != 0 {
					return s, n
				}
			}
		}
	}
	return state, 0
}

// Conflict reports whether a transaction failed because of others, and did nothing.
func Conflict(err error) bool {
	state, number := Code(err)
	switch {
	case state == "40001" || state == "40P01" || state == "55P03": // serialization failure, deadlock, lock_timeout
		return true
	case number == 1213 || number == 1205 || number == 1020: // MySQL: deadlock, lock wait, changed since it was read
		return true
	case state == "" && (number&0xff == 5 || number&0xff == 6) && number < 1000: // SQLite: busy, locked
		return true
	}
	return false
}

// Denied reports whether the database's user lacks a right.
func Denied(err error) bool {
	state, number := Code(err)
	switch number {
	case 1044, 1142, 1143, 1227, 1370: // MySQL: of a database, table, column, server, routine
		return true
	}
	return state == "42501"
}

// Away reports whether the database can't be reached, or not now: what failed may be
// tried again.
func Away(err error) bool {
	if Conflict(err) {
		return true
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	state, number := Code(err)
	for _, class := range []string{"08", "57P", "53"} { // connection, shut down or starting, out of resources
		if strings.HasPrefix(state, class) {
			return true
		}
	}
	switch number {
	case 1040, 1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1203, 1317, 1927, 2002, 2003, 2006, 2013: // MySQL
		return true
	}
	var network *net.OpError
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network) ||
		err.Error() == "invalid connection" // go-sql-driver/mysql's ErrInvalidConn, which has no type
}

// Patience is how long the library's own statements are tried again after the first conflict.
const Patience = 5 * time.Second

// Retry runs fn, and runs it again after a [Conflict], until patience has passed since the
// first one: that is not a failure of what fn does, and nobody counts it. The error is the
// last one of fn.
func Retry(ctx context.Context, patience time.Duration, fn func() error) error {
	err := fn()
	if err == nil || !Conflict(err) {
		return err
	}
	const step, longest = 5 * time.Millisecond, 100 * time.Millisecond
	end := time.Now().Add(patience)
	for bound := step; Conflict(err) && time.Now().Before(end); bound = min(bound+step, longest) {
		timer := time.NewTimer(rand.N(bound)) // at random, so that two that disturb each other do not meet again
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
		if err = fn(); err == nil {
			return nil
		}
	}
	return err
}
