package main

import (
	// The schemes that --transport knows.
	_ "github.com/gotidings/tidings/transports/rabbitmq"
	_ "github.com/gotidings/tidings/transports/sql"

	// The drivers that transports/sql opens its URLs with.
	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"
)
