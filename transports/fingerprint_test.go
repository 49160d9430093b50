package transports_test

import (
	"testing"

	"github.com/gotidings/tidings/transports"
)

func TestPoisonedFingerprintIsOfTypeAndReason(t *testing.T) {
	t.Parallel()
	of := func(errorType, reason string) string {
		return transports.Poisoned{ErrorType: errorType, Reason: reason}.Fingerprint()
	}
	if a, b := of("*T", "order 1 is gone"), of("*T", "order 23 is gone"); a != b {
		t.Errorf("one fault has the fingerprints %s and %s", a, b)
	}
	if of("*T", "gone") == of("*U", "gone") || of("*T", "gone") == of("*T", "closed") {
		t.Error("two faults have one fingerprint")
	}
}
