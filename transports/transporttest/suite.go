package transporttest

import (
	"slices"
	"sync"
	"testing"
)

// test is one behaviour, named by what it promises.
type test struct {
	name  string
	needs []Feature // the one that it is about first
	run   func(*env)
}

// allTests is in the order of the files.
var allTests = slices.Concat(
	deliveryTests, groupTests, patternTests, settleTests, orderTests, pressureTests,
	delayTests, poisonTests, removalTests, contentTests, publishTests, lifecycleTests, reconnectTests,
)

// Run runs every test of the suite as a parallel subtest of t, and returns when
// all have ended. A test that needs a feature that f declares to be lacking is
// skipped, with the reason.
func Run(t *testing.T, h Harness, f Features) Results {
	t.Helper()
	h, f = h.withDefaults(), f.withDefaults()
	tr := h.Open(t)
	err := f.check(h, tr)
	if closeErr := tr.Close(); closeErr != nil {
		t.Errorf("close: %v", closeErr)
	}
	if err != nil {
		t.Fatalf("features:\n%v", err)
	}

	results := Results{features: f, passed: make(map[string]bool)}
	var mu sync.Mutex // guards results.passed
	// The group returns when its parallel tests have ended.
	t.Run("seam", func(t *testing.T) {
		for _, test := range allTests {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				if missing, why := f.lacks(test.needs); missing != "" {
					t.Skipf("feature not supported: %s: %s", missing, why)
				}
				test.run(newEnv(t, h, f))
				mu.Lock()
				defer mu.Unlock()
				results.passed[test.name] = !t.Failed()
			})
		}
	})
	return results
}
