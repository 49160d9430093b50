// Package handlers holds the handlers of the domain's events: what a shop does
// when a customer registers, an order is placed or a document is processed.
//
// Each handler is made from a small interface that the service implements over
// its mail provider, its stock, its alarms, and is subscribed as it is:
//
//	bus.Subscribe(b, "send-welcome-email", handlers.WelcomeEmail(mailer))
//	bus.Subscribe(b, "reserve-inventory", handlers.InventoryReservation(inventory))
//
//	handler                 event                    needs
//	[WelcomeEmail]          customer.created         [Mailer]
//	[VIPGreeting]           customer.promoted_to_vip [Mailer]
//	[InventoryReservation]  order.created            [Inventory]
//	[UserNotification]      document.processed       [Notifier]
//	[DocumentAnalytics]     document.processed       [Analytics]
//	[FailureAlert]          document.failed          [Alerter]
//
// # Errors
//
// A handler returns the error of its collaborator, wrapped so that errors.Is
// and errors.As find it. It is the verdict on the delivery: any error is tried
// again by the subscription's retry policy, and bus.Permanent(err), returned by
// the collaborator, is not.
//
// # Idempotency
//
// An event can be delivered more than once: after a crash, a lost connection, a
// redrive of the poison queue. The handlers keep nothing of their own; they hand
// the collaborator an idempotency key for each effect, and are idempotent as far
// as the collaborator honours it: the second call with a key that has succeeded
// does nothing and returns nil. Many providers take such a key (often as the
// header Idempotency-Key); with a database of your own, insert it into a table
// with a unique column in the transaction that has the effect.
// Two calls with one key can be under way at once, when a replica that was taken
// for dead is only slow; such a table lets one of them wait for the other.
//
// A key is 64 characters of lower-case hexadecimal. It is made from the source
// and the id of the event, which name the event, and from the effect. So
//
//   - every delivery of an event has the same key, whatever the subscription, the
//     replica or the attempt, also after a replay,
//   - two effects of an event have different keys: the notification and the
//     analytics of one document may share a table of keys,
//   - keys stay the same from one version of this package to the next.
//
// An event without an id, from a publisher that gives none, can't be told from
// its second delivery, and neither can a direct call whose context has no
// metadata. Every such call gets a key of its own, so the effect happens at
// least once. A test that calls a handler directly says which event it means
// with [events.WithMetadata].
package handlers
