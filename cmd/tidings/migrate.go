package main

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/gotidings/tidings/eventstore"
	"github.com/gotidings/tidings/inbox"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

func (a *app) migrateCommand() *cobra.Command {
	var statements bool
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Make the tables, or bring them up to date",
		Long: `Makes the tables of the log in a database, or brings them up to date; on RabbitMQ it
declares the exchanges. It does nothing when there is nothing to do, and may run in
several processes at once. Services do the same at their start unless they are told
otherwise, and make the table of an inbox as well.

With --print it prints the statements for an empty database instead, those of the inbox's
table and the event store's included, and connects to nothing: for teams that run their own migrations.`,
		Example: `  tidings migrate --transport 'postgres://owner@db/shop?schema=events'
  tidings migrate --print --transport 'postgres://db/shop?schema=events' > events.sql`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if statements {
				return a.printMigration()
			}
			if u, err := url.Parse(a.transport); err == nil && a.isAMQP() && u.Query().Get("topology") == "none" {
				return usagef("topology=none in --transport declares nothing; take it off for tidings migrate")
			}
			return a.with(cmd.Context(), migrate, func(t transports.Transport) error {
				what := "the exchanges are"
				if log, ok := t.(*tsql.Transport); ok {
					what = fmt.Sprintf("the tables (%s) are", log.Dialect())
				}
				a.say("%s up to date", what)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&statements, "print", false, "print the SQL statements, and run none")
	return cmd
}

func (a *app) printMigration() error {
	u, err := url.Parse(a.transport)
	if err != nil || a.transport == "" {
		return usagef("--print needs the URL of a database, by --transport or TIDINGS_TRANSPORT, to know its kind, schema and prefix")
	}
	dialect, ok := map[string]tsql.Dialect{
		"postgres": tsql.Postgres, "postgresql": tsql.Postgres, "mysql": tsql.MySQL, "sqlite": tsql.SQLite,
	}[u.Scheme]
	if !ok {
		return usagef("--print is for databases: give --transport postgres://, mysql:// or sqlite:")
	}
	schema, prefix := u.Query().Get("schema"), u.Query().Get("prefix")
	versions, err := tsql.MigrationSQL(tsql.Config{Dialect: dialect, Schema: schema, Prefix: prefix})
	if err != nil {
		return &usageError{err}
	}
	ofInbox, err := inbox.MigrationSQL(inbox.Config{Dialect: dialect, Schema: schema, Prefix: prefix})
	if err != nil {
		return &usageError{err}
	}
	ofStore, err := eventstore.MigrationSQL(tsql.Config{Dialect: dialect, Schema: schema, Prefix: prefix})
	if err != nil {
		return &usageError{err}
	}
	for i, statements := range versions {
		fmt.Fprintf(a.out, "-- the log, version %d\n", i+1)
		for _, s := range statements {
			fmt.Fprintf(a.out, "%s;\n", s)
		}
	}
	for _, part := range []struct {
		name       string
		statements []string
	}{{"the inbox", ofInbox}, {"the event store", ofStore}} {
		fmt.Fprintf(a.out, "-- %s\n", part.name)
		for _, s := range part.statements {
			fmt.Fprintf(a.out, "%s;\n", s)
		}
	}
	return nil
}
