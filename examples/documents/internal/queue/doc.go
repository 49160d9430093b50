// Package queue processes the messages of a work queue, so many at a time, and settles each
// as its handler decides:
//
//	Complete     it is done
//	Abandon      it comes back after a delay, MaxDeliveries times in all; then it is dead-lettered
//	Return       it was not tried, and comes back uncounted
//	DeadLetter   no delivery will help: it is kept aside, with a reason and a description
//
//	p, err := queue.New(queue.Config[Job]{
//		Transport: transport, Name: "documents.process", Topics: []string{"document.requested"},
//		Handle: func(ctx context.Context, d queue.Delivery[Job]) queue.Settlement {
//			if err := process(ctx, d.Body); err != nil {
//				return queue.Abandon(err)
//			}
//			return queue.Complete()
//		},
//	})
//
// A handler that panics abandons the message, and what can't be decoded is dead-lettered at
// once. A message is settled when its handler has returned and, if it was not completed, is
// stored where it waits next: so none is lost, and after a crash one may come twice. A
// message that was interrupted, by a crash or by [Processor.Stop], comes back uncounted.
//
//	Start ──► running ──Stop──► draining: no message begins; those that run are settled
//	             │                 └──its context ends──► their contexts end too, and they go back
//	             └──the transport closes the subscription──► ended, with ErrLost
//
// The bus does as much and more, with policies instead of decisions: bus.Subscribe is the
// better choice for events. What is here stands on the same middleware.
package queue
