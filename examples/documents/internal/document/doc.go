// Package document is the domain of the example: what a document is, how it moves through
// processing, and where it is kept. It knows no transport, no HTTP and no page.
//
//	queued ──► processing: extract ► classify ► summarise ► charge ──► processed
//	                 │                                            └──► failed
//	                 └─ a step can't be done now: it stays where it is, and the next delivery
//	                    of its message goes on from there
//
// Each change is one transaction of [Store]: the row and the event that tells of it.
package document
