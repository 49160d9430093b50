// Package dbsettings finds settings of a database session that break a promise of the
// library. They are found once, when a pool is given to the library: the sessions of a pool
// are taken to be alike.
package dbsettings

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// Queryer is a *sql.DB, or one connection.
type Queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// rule says what values of a setting are refused, or only warned of: those that make the
// server's commits less durable are the choice of its operator.
type rule struct {
	names  []string // alternatives: servers differ
	broken func(value string) bool
	why    string // what goes wrong, and the remedy
	warn   bool
}

// Check returns an error that names every setting that has to be changed, and warnings.
// dialect is "postgres", "mysql" or "sqlite".
func Check(ctx context.Context, q Queryer, dialect string) (warnings []string, err error) {
	var rules []rule
	var values map[string]string
	switch dialect {
	case "postgres":
		rules = postgres
		values, err = read(ctx, q, rules, `select name, setting from pg_settings where name in (%s)`)
	case "mysql":
		rules = mysql
		values, err = read(ctx, q, rules, `show variables where variable_name in (%s)`)
	case "sqlite":
		rules = sqlite
		values, err = read(ctx, q, rules, `select 'journal_mode', journal_mode from pragma_journal_mode union all `+
			`select 'synchronous', synchronous from pragma_synchronous union all select 'read_uncommitted', read_uncommitted from pragma_read_uncommitted`)
	}
	if err != nil {
		return nil, fmt.Errorf("read the settings of the session: %w", err)
	}
	var faults []error
	for _, r := range rules {
		for _, name := range r.names {
			value, there := values[name]
			switch {
			case !there || !r.broken(value):
			case r.warn:
				warnings = append(warnings, fmt.Sprintf("%s is %s: %s", name, value, r.why))
			default:
				faults = append(faults, fmt.Errorf("%s is %q: %s", name, value, r.why))
			}
		}
	}
	return warnings, errors.Join(faults...)
}

func read(ctx context.Context, q Queryer, rules []rule, query string) (values map[string]string, err error) {
	var names []string
	for _, r := range rules {
		for _, name := range r.names {
			names = append(names, "'"+name+"'")
		}
	}
	rows, err := q.QueryContext(ctx, strings.Replace(query, "%s", strings.Join(names, " , "), 1))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	values = make(map[string]string)
	for rows.Next() {
		var name string
		var value sql.NullString
		if err := rows.Scan(&name, &value); err != nil {
			return nil, err
		}
		values[strings.ToLower(name)] = value.String
	}
	return values, rows.Err()
}

func is(bad ...string) func(string) bool {
	return func(value string) bool {
		for _, b := range bad {
			if strings.EqualFold(value, b) {
				return true
			}
		}
		return false
	}
}

func isNot(good ...string) func(string) bool {
	one := is(good...)
	return func(value string) bool { return !one(value) }
}

func has(words ...string) func(string) bool {
	return func(value string) bool {
		for _, w := range words {
			if strings.Contains(strings.ToUpper(value), w) {
				return true
			}
		}
		return false
	}
}

func lacks(words ...string) func(string) bool {
	one := has(words...)
	return func(value string) bool { return !one(value) }
}

var postgres = []rule{
	{
		names: []string{"synchronous_commit"}, broken: is("off"),
		why: "a commit returns before it is durable, so that a crash loses what was acknowledged; set it to on, in the URL or with ALTER ROLE",
	},
	{
		names: []string{"server_encoding"}, broken: isNot("UTF8"),
		why: "it can't store every character of an event; use a database whose encoding is UTF8",
	},
	{
		names: []string{"fsync"}, broken: is("off"), warn: true,
		why: "a crash of the machine loses what was committed",
	},
}

var mysql = []rule{
	{
		names: []string{"autocommit"}, broken: is("OFF", "0"),
		why: "nothing is stored that is written outside a transaction; add autocommit=1 to the DSN",
	},
	{
		names: []string{"sql_mode"}, broken: lacks("STRICT_TRANS_TABLES", "STRICT_ALL_TABLES", "TRADITIONAL"),
		why: "without STRICT_TRANS_TABLES the server changes silently what it can't store; add sql_mode=%27STRICT_TRANS_TABLES%27 to the DSN",
	},
	{
		names: []string{"sql_mode"}, broken: has("EMPTY_STRING_IS_NULL", "ORACLE"),
		why: "an empty string is not NULL in the statements of the library; add sql_mode=%27STRICT_TRANS_TABLES%27 to the DSN",
	},
	{
		names: []string{"sql_safe_updates"}, broken: is("ON", "1"),
		why: "the server refuses statements that the library needs; add sql_safe_updates=0 to the DSN",
	},
	{
		names: []string{"sql_select_limit"}, broken: isNot("18446744073709551615"),
		why: "results are cut off; add sql_select_limit=default to the DSN",
	},
	{
		names: []string{"transaction_isolation", "tx_isolation"}, broken: is("READ-UNCOMMITTED"),
		why: "the library would read what is not committed; use READ-COMMITTED or any other level",
	},
	{
		names: []string{"character_set_client", "character_set_connection", "character_set_results"}, broken: isNot("utf8mb4"),
		why: "text would be stored and read in other characters than those of other processes; add charset=utf8mb4 to the DSN",
	},
	{
		names: []string{"innodb_flush_log_at_trx_commit"}, broken: isNot("1"), warn: true,
		why: "a crash of the server or of the machine loses what was committed",
	},
}

var sqlite = []rule{
	{
		names: []string{"journal_mode"}, broken: is("off"),
		why: "a transaction can't be rolled back; set it to WAL",
	},
	{
		names: []string{"read_uncommitted"}, broken: is("1"),
		why: "the library would read what is not committed; leave it at 0",
	},
	{
		names: []string{"journal_mode"}, broken: is("memory"), warn: true,
		why: "a crash of the process can damage the file; set it to WAL",
	},
	{
		names: []string{"synchronous"}, broken: is("0"), warn: true,
		why: "a crash of the machine loses what was committed, or damages the file; set it to FULL",
	},
}
