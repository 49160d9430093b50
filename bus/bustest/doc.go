// Package bustest helps services to test their handlers: a bus on a memory broker
// that knows when everything is done, remembers what happened, and makes deliveries
// fail, repeat or crash as a test asks for.
//
//	func TestWelcome(t *testing.T) {
//		b := bustest.New(t, bus.Config{Source: "shop"}, bustest.DeliverTwice())
//		bus.Subscribe(b.Bus, "send-welcome-email", handlers.WelcomeEmail(&mailer))
//		b.Start()
//		b.Publish(events.CustomerCreated{CustomerID: 42, Email: "ada@example.com"})
//		b.Idle()
//		// look at the mailer, b.Poisoned("send-welcome-email"), b.Outcomes(…)
//	}
//
// # Time
//
// [Bus.Idle] waits until nothing is left to do, the retries that come later
// included. In a bubble of testing/synctest time is virtual, so that an hour of
// back-off takes no time:
//
//	synctest.Test(t, func(t *testing.T) { … })
//
// # Faults
//
// They are options of [New] and meet a subscription's attempts by their number,
// counted from 1 across all events: [Fail], [Delay], [Crash]; or every event:
// [DeliverTwice].
package bustest
