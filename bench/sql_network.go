package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// far returns the database behind a proxy that holds each packet back for half of roundTrip in
// each direction, and a function that ends the proxy.
func (d sqlDatabase) far(ctx context.Context, roundTrip time.Duration) (_ sqlDatabase, end func() error, err error) {
	dsn, host := d.url(), ""
	if d.driver == "mysql" {
		cfg, err := mysql.ParseDSN(dsn)
		if err != nil {
			return d, nil, err
		}
		host = cfg.Addr
	} else {
		u, err := url.Parse(dsn)
		if err != nil {
			return d, nil, err
		}
		host = u.Host
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return d, nil, fmt.Errorf("proxy: %w", err)
	}
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				var dialer net.Dialer
				far, err := dialer.DialContext(ctx, "tcp", host)
				if err != nil {
					_ = near.Close() // the client sees it
					return
				}
				go slowly(far, near, roundTrip/2)
				slowly(near, far, roundTrip/2)
			}()
		}
	}()
	d.dsn, d.env = strings.Replace(dsn, host, listener.Addr().String(), 1), ""
	return d, listener.Close, nil
}

// slowly copies what comes, each packet after a delay, until one side closes; then it closes both.
func slowly(to, from net.Conn, delay time.Duration) {
	type packet struct {
		due  time.Time
		data []byte
	}
	packets := make(chan packet, 1024)
	go func() {
		defer close(packets)
		for {
			buf := make([]byte, 32<<10)
			n, err := from.Read(buf)
			if n > 0 {
				packets <- packet{time.Now().Add(delay), buf[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	var err error
	for p := range packets { // to the end, or the reader would wait for ever
		<-time.After(time.Until(p.due))
		if err == nil {
			_, err = to.Write(p.data)
		}
		if err != nil {
			_ = from.Close() // ends the reader
		}
	}
	_ = errors.Join(to.Close(), from.Close()) // one side has closed it
}
