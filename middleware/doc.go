// Package middleware holds the concerns of consuming, one a file, each a
// Watermill message.HandlerMiddleware that works on any Watermill router. The bus
// composes them in an order in which they are right together; a user who composes
// them on a router of their own follows the same order, outermost first:
//
//	Recover       last resort: a panic in the middleware itself
//	Gate          pause and resume
//	Correlation   the event's metadata into the context
//	Poison        what failed for good is kept, with its reason
//	Redelivery    what failed for now comes back later
//	Dedup         each event is handled once
//	Retry         a few quick tries in place
//	Bulkhead      so many at a time
//	Timeout       so long at most
//	Recover       a panic of the handler is an error
//
// # Verdicts
//
// What becomes of a message is decided by the error that its handler returns:
// nil acknowledges it; [Permanent], [RetryAfter], [Discard] and [Defer] say what
// they say; any other error follows the retry policy.
//
// # Interruptions
//
// When the context of a message ends, the bus or its transport is going away, and
// whatever error the handler returns is a consequence of that and no failure of
// the event. The error is then [ErrInterrupted]: nothing is counted, nothing is
// poisoned, and the router nacks the message, so that it goes back. That is the
// difference to Watermill's own middleware, whose Retry and PoisonQueue together
// poison what is in flight at every shutdown.
package middleware
