// Package frames reads AMQP 0-9-1 for the client library amqp091-go, which ends its connection,
// with every consumer on it, at a message whose headers it can't read: a list of more than
// 8192 elements, one that is nested more than 32 deep, or headers that have outgrown a frame
// because the broker has added its own to them.
//
//	socket ──► Reader ──► amqp091-go
//	            content headers that the client can't read are rewritten
//
// What can't be read becomes text, as JSON, and what does not fit into a frame is shortened.
package frames
