// Package outboxtest tests packages outbox and inbox on real databases and RabbitMQ.
package outboxtest
