// Package httpauth authenticates requests between services, on both sides.
//
// [Bearer] sends a token and [RequireBearer] asks for it. That is enough between services
// of one owner over TLS. Whoever sees a token can use it.
//
// [HMAC] signs a request with a key that is never sent, and a [Verifier] checks it: the
// request is the one that was signed, it was signed a short while ago, and it comes for the
// first time. For requests that cross others' proxies, and for webhooks.
//
//	Authorization: HMAC-SHA256 key="shop", time="1764014296", nonce="kPu2…", signature="9f0c…"
//
// The signature is over these lines, joined by newlines:
//
//	HMAC-SHA256
//	POST                          method
//	ocr.internal:8080             host
//	/texts?lang=en                path and query, as sent
//	4b7e…                         Idempotency-Key, or nothing
//	1764014296                    time, in seconds since 1970
//	kPu2…                         nonce
//	2c26…                         SHA-256 of the body, in hexadecimal
//
// Anybody who fails gets 401 and is not told why; the log says it.
package httpauth
