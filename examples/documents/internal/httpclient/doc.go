// Package httpclient is what typed clients of JSON services are built on: it retries,
// limits, times out, authenticates, logs and traces, and tells by the error what can be
// done about it. Policies are those of failsafe-go.
//
//	c, err := httpclient.New(httpclient.Config{Name: "ocr", BaseURL: "https://ocr.internal", Auth: httpauth.Bearer(token)})
//	text, err := httpclient.Do(ctx, c, httpclient.Request[Text]{Method: http.MethodGet, Path: "/texts/42"})
//
// # A call
//
// What a call goes through, outermost first:
//
//	fallback   another answer when the service has none
//	timeout    30 s in all
//	retry      after 2, 4 and 8 s, on 5xx, 429 and network errors
//	bulkhead   so many tries at a time
//	auth       afresh for each try
//	breaker    open for 30 s after 5 failures in a row
//	timeout    10 s a try, the response's body included
//	trace      a span for each try, and its context in the headers
//	log        a line for each try
//
// Only calls that can be repeated are: those of idempotent methods, and others that have
// an idempotency key, by which the service knows them again.
//
// # Errors
//
// Every error of a call is an [*Error]. Its kind says what to do:
//
//	ErrUnavailable   no answer, or one that promises none; later there may be one
//	ErrTimedOut      no answer in time; the service may have done it all the same
//	ErrRefused       an answer: no. To repeat the call is of no use
//	ErrMalformed     an answer that is not what was agreed
//
// An error of a caller who has gone is none of them, but context.Canceled.
package httpclient
