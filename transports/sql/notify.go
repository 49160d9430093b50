package sql

import (
	"context"
	"strconv"
	"time"
)

// notifyPause is the least time between two notifications of a process. NOTIFY takes a
// lock of the whole database as its transaction commits, so there is not one for each
// publish, and none in the transactions of publishers.
const notifyPause = 5 * time.Millisecond

// NotifyChannel is the channel of PostgreSQL on which [Config.Notify] says that
// something was published. Package pgnotify listens to it.
func (t *Transport) NotifyChannel() string {
	return "tidings_" + strconv.FormatUint(uint64(eventHash(t.store.cfg.Schema, t.store.cfg.Prefix)), 16) //nolint:gosec // a name
}

// notify tells other processes, again and again, that something was published.
func (t *Transport) notify(ctx context.Context) {
	for {
		select {
		case <-t.published:
		case <-ctx.Done():
			return
		}
		_, err := t.store.one(ctx, t.store.db, []any{new(string)}, `select pg_notify(?, '')::text`, t.NotifyChannel())
		if err != nil && ctx.Err() == nil { // they find it when they poll
			t.store.log.Warn("other processes can't be notified", "error", err)
		}
		wait(ctx, notifyPause)
	}
}

// woken begins a notification where they are asked for.
func (t *Transport) woken() {
	if !t.store.cfg.Notify {
		return
	}
	token(t.published)
	t.notifying.Do(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.isClosed {
			return
		}
		ctx, cancel := context.WithCancel(context.Background()) // ends with the transport
		context.AfterFunc(t.closed, cancel)
		t.background.Go(func() { t.notify(ctx) })
	})
}
