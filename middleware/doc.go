// Package middleware holds the concerns of consuming, one a file, each a
// Watermill message.HandlerMiddleware that works on any Watermill router. The bus
// composes them in an order in which they are right together; a user who composes
// them on a router of their own follows the same order, outermost first:
//
//	Recover               last resort: a panic in the middleware itself
//	HoldLimit             what is held for too long goes back
//	Gate                  pause and resume; an open circuit
//	Logging               a line for each delivery that fails; LogLimiter bounds them
//	Correlation           the event's metadata into the context
//	Poison                what failed for good is kept, with its reason
//	Redelivery            what failed for now comes back later
//	Dedup                 each event is handled once
//	Fallback              something else when the tries are used up
//	Retry                 a few quick tries in place
//	CircuitBreaker.Wait   nothing is tried while the dependency is down
//	Bulkhead              so many at a time
//	RateLimit             so often
//	CircuitBreaker.Guard  tells the breaker of the outcome
//	Policies              any policies of failsafe-go
//	Timeout               so long at most
//	Recover               a panic of the handler is an error
//
// None of them is needed by another one, except that an open circuit needs the Gate to
// stop the intake.
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
//
// What is held for longer than its [HoldLimit], because its subscription is paused, its
// circuit open or its poison queue can't be written, is interrupted too.
//
// # Policies that are shared
//
// Circuit breakers, rate limiters, bulkheads and other policies are those of failsafe-go.
// One object can guard the handlers of several subscriptions, and the HTTP and gRPC
// clients that they use, by failsafehttp and failsafegrpc.
package middleware
