package realtime

// client is one connection. Its request's goroutine serves it, and with a WebSocket a
// second one writes.
type client struct {
	principal Principal
	queue     chan *message // filled under Hub.mu, never waited for
	gone      chan struct{} // closed when ended is set

	// Guarded by Hub.mu; code and reason can be read once gone is closed.
	groups map[string]struct{}
	ended  bool
	code   int
	reason string
	abort  func() // cuts the connection
}

// send writes what is queued until the client is to end, or a write fails. What is queued
// behind that is not written, so that the reason comes at once.
func (c *client) send(msg *message, write func(*message) error) error {
	batch := msg.batch
	if batch == nil {
		batch = []*message{msg}
	}
	for _, one := range batch {
		select {
		case <-c.gone:
			return nil
		default:
		}
		if err := write(one); err != nil {
			return err
		}
	}
	return nil
}
