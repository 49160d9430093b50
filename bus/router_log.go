package bus

import (
	"context"
	"errors"
	"log/slog"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/gotidings/tidings/middleware"
)

// routerLog passes on what Watermill's router says: its news at the debug level,
// since the bus says what matters itself.
type routerLog struct{ log *slog.Logger }

var _ watermill.LoggerAdapter = routerLog{}

func (l routerLog) Error(msg string, err error, fields watermill.LogFields) {
	level := slog.LevelError
	// What a handler returned is logged where it was returned.
	if errors.Is(err, middleware.ErrInterrupted) || msg == "Handler returned error" || msg == "All handlers stopped, closing router" {
		level = slog.LevelDebug
	}
	l.write(level, msg, fields, slog.Any("error", err))
}

func (l routerLog) Info(msg string, fields watermill.LogFields) {
	l.write(slog.LevelDebug, msg, fields)
}

func (l routerLog) Debug(msg string, fields watermill.LogFields) {
	l.write(slog.LevelDebug, msg, fields)
}

// Trace discards: the router calls it several times for each message.
func (l routerLog) Trace(string, watermill.LogFields) {}

func (l routerLog) With(fields watermill.LogFields) watermill.LoggerAdapter {
	args := make([]any, 0, 2*len(fields))
	for k, v := range fields {
		args = append(args, k, v)
	}
	return routerLog{l.log.With(args...)}
}

func (l routerLog) write(level slog.Level, msg string, fields watermill.LogFields, attrs ...slog.Attr) {
	ctx := context.Background()
	if !l.log.Enabled(ctx, level) {
		return
	}
	for k, v := range fields {
		attrs = append(attrs, slog.Any(k, v))
	}
	l.log.LogAttrs(ctx, level, "router: "+msg, attrs...) //nolint:sloglint // the router's own words
}
