package bus

import (
	"time"

	"github.com/gotidings/tidings/middleware"
)

// Permanent marks a handler's error as not worth another try: the event goes to
// the poison queue at once.
func Permanent(err error) error { return middleware.Permanent(err) }

// RetryAfter asks for the event to come back after d instead of the back-off that
// the retry policy has for it. It uses up one redelivery of the policy.
func RetryAfter(d time.Duration, err error) error { return middleware.RetryAfter(d, err) }

// Discard marks a handler's error as of no consequence: the event is
// acknowledged and counted as discarded.
func Discard(err error) error { return middleware.Discard(err) }
