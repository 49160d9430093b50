package transports

import "github.com/gotidings/tidings/internal/fingerprint"

// Fingerprint names the fault of a poisoned message: eight hexadecimal digits that are
// the same for messages whose error has the same Go type and the same text, whatever
// numbers, ids, times, addresses and quoted values stand in it. So thousands of events
// that one fault has poisoned are one group.
//
// It is for grouping and for choosing, not for security, and may change between versions
// of this library.
func (p Poisoned) Fingerprint() string { return fingerprint.Of(p.ErrorType, p.Reason) }
