package sql

import (
	"cmp"
	"sync"

	"github.com/gotidings/tidings/transports"
)

// interruption tells a receiver why its subscription receives nothing. A subscription is
// kept while the database can't be reached, so that it misses nothing.
type interruption struct {
	tell func(transports.Interruption) // nil: nobody asks

	mu          sync.Mutex // guards what follows, and makes the calls come one at a time
	look, fetch error      // why the poller can't look for messages, and the consumer can't fetch them
}

// looked notes what the poller's last look ended with.
func (i *interruption) looked(err error) { i.note(&i.look, err) }

// fetched notes what the consumer's last fetch ended with.
func (i *interruption) fetched(err error) { i.note(&i.fetch, err) }

func (i *interruption) note(last *error, err error) {
	if i.tell == nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	before := cmp.Or(i.fetch, i.look)
	*last = err
	if now := cmp.Or(i.fetch, i.look); now != nil || before != nil {
		i.tell(transports.Interruption{Cause: now})
	}
}
