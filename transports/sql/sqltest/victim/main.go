// Victim consumes a subscription until it is killed, and prints the id of each message
// before it acknowledges it. Tests build it without the race detector, with which SQLite
// takes 30 times as long.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/gotidings/tidings/transports"
	_ "github.com/gotidings/tidings/transports/sql"
)

func main() {
	url := flag.String("url", "", "of the transport")
	work := flag.Duration("work", time.Millisecond, "how long a message takes")
	flag.Parse()
	if err := run(*url, *work); err != nil {
		fmt.Fprintln(os.Stderr, "victim:", err)
		os.Exit(1)
	}
}

func run(url string, work time.Duration) error {
	ctx := context.Background()
	tr, err := transports.Open(ctx, url)
	if err != nil {
		return err
	}
	ch, err := tr.Subscribe(ctx, transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 20})
	if err != nil {
		return err
	}
	for msg := range ch {
		<-time.After(work)
		if _, err := fmt.Println(msg.UUID); err != nil {
			return err
		}
		msg.Ack()
	}
	return nil
}
