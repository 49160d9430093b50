// Package realtime pushes events to browsers, over WebSockets and server-sent events.
//
//	hub, err := realtime.New(realtime.Config{
//		Bus:          b,
//		Authenticate: sessionOf,  // func(*http.Request) (realtime.Principal, error)
//		Authorize:    mayWatch,   // func(context.Context, realtime.Principal, string) error
//	})
//	realtime.On(hub, func(e events.DocumentProcessed) []string {
//		return []string{"document_" + e.DocumentID}
//	})
//	mux.Handle("/live/", hub)
//
// A page joins groups and gets their events as they happen:
//
//	import { connect } from "/live/tidings.js";
//	const leave = connect("/live/").join("document_7", (event) => show(event.data));
//
// It is a module of its own: who does not import it links no WebSocket code.
//
// # How it works
//
// [New] adds an ephemeral subscription to the bus, so that every node sees every event, and
// a client may be connected to any. The functions that [On] was given name an event's
// groups. Under one lock, the event goes into the group's history and into the queue of
// each client of the group; nobody is waited for. A client whose queue is full is dropped,
// with a reason, and comes back where it was. Of each client, one goroutine reads and one
// writes; server-sent events need one in all.
//
//	bus ─ ephemeral subscription ─ groups of the event ─┬─ history, bounded
//	                                                    ├─ queue ─ writer ─ client
//	                                                    └─ queue full: client dropped, 4408
//
// # Delivery
//
// Events of a group come in the order in which the node receives them, once per group that
// the client is in. A client that reconnects, with the id of the last message that it has,
// gets what it has missed; when that is no longer all there, it gets a "reset", and should
// fetch the state anew. Ids are good on all nodes. A client that comes from another node
// gets the last two seconds before its position again, since nodes see events of several
// publishers in different orders; the JavaScript client drops the copies.
//
// A node whose connection to the broker is lost, and its subscription with it, can't tell
// what it misses: it sends its clients away, with [CloseInterrupted], and answers 503 until it
// is connected again. Clients that get to a node which has its broker miss nothing there; those
// that come back to this one get a reset. It takes as long as the transport's heartbeat until
// a broker that has fallen silent counts as lost.
//
// This is a view of what happens, not a queue: what no node receives, no client gets. State
// belongs into a database, which a page reads after "joined" and "reset".
//
// # The protocol
//
// Over a WebSocket, of subprotocol "tidings.v1", messages are JSON in text frames. From the
// client:
//
//	{"join": "document_7"}
//	{"join": "document_7", "after": "<id of the last message>"}
//	{"leave": "document_7"}
//
// and from the server:
//
//	{"type": "joined", "group": "document_7", "id": "…"}
//	{"type": "left", "group": "document_7"}
//	{"type": "event", "id": "…", "group": "document_7", "event": {"id", "source", "type", "time", "subject", "data"}}
//	{"type": "reset", "group": "document_7"}
//	{"type": "error", "group": "document_9", "code": "forbidden", "message": "…"}
//
// Errors are forbidden, bad_group and too_many_groups, and leave the connection open. What
// ends it has a close code: [CloseBadMessage], [CloseUnauthorized], [CloseSlow],
// [CloseExpired], [CloseInterrupted], [CloseGoingAway], and 1009 for a message that is too large.
//
// Server-sent events have the same messages as data, with "message" as the type of those
// that are events: GET /live/?group=document_7&group=document_8, and the last id in
// Last-Event-ID, which EventSource does by itself. Before it ends the stream, the server
// sends an event "close" with the code. Refusals have an HTTP status and a body as that of
// an error: 400, 401, 403, 503.
//
// # Who may what
//
// Pages of the handler's own host may connect, and those of [Config.Origins]; others get
// 403. [Config.Authenticate] is asked for each connection, which ends with
// [Principal.Expires], and [Config.Authorize] for each join. A forbidden group and one that
// does not exist have the same answer. Events are sent without the metadata that services
// use among themselves, and name no group but the receiver's; [OnView] leaves out what is
// nobody's business, such as the stack trace of a failure.
package realtime
