// Package transporttest is the conformance suite of the seam: what every
// [transports.Transport] has to do, and what it may declare not to.
//
//	func TestConformance(t *testing.T) {
//		t.Parallel()
//		transporttest.Run(t, transporttest.Harness{Open: open}, transporttest.Features{
//			Lacks: map[transporttest.Feature]string{
//				transporttest.Patterns: "the broker's topics are exact names",
//			},
//		})
//	}
//
// A test needs features. One that the transport lacks makes its tests skip, with
// the reason that was declared; nothing else does. A feature that is declared to
// be lacking while the transport implements its interface is a fault, and so is
// the reverse.
//
// The suite runs against real brokers, so it is written for real time: it waits
// for signals, with a deadline, and where nothing may arrive it listens for a
// short, bounded time. Its tests run in parallel, on one broker; all that they
// make there has a name that is used once, and is removed afterwards.
//
// The package imports testing, so only tests import it.
package transporttest
