package testserver

import (
	"context"
	"errors"
	"net"
	"sync"
)

// Network dials, and takes the connections that it made away. The zero value works; its
// methods may be called concurrently.
type Network struct {
	mu    sync.Mutex // guards what follows
	conns []net.Conn
	down  bool
}

// Dial is a [net.Dialer]'s DialContext that fails while the network is down.
func (n *Network) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down {
		return nil, errors.New("the network is down")
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err == nil {
		n.conns = append(n.conns, conn)
	}
	return conn, err
}

// Cut closes all connections, and makes none until Restore.
func (n *Network) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = true
	for _, conn := range n.conns {
		_ = conn.Close() // it is cut
	}
	n.conns = nil
}

// Restore lets connections be made again.
func (n *Network) Restore() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = false
}
