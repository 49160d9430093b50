// Package patterns measures what each way of talking between services costs, for
// docs/patterns.md:
//
//	go test -run '^$' -bench . -benchtime 2s ./examples/documents/internal/patterns
//
// Client and server are in one process and talk over loopback; brokers and databases are
// those that tests find. Each case carries the same job, of 200 bytes, and ends when its
// receiver has it. p50-µs and p99-µs are of one job at a time, per-s of 64.
package patterns
