// Package telemetrytest holds the tests of package telemetry that need OpenTelemetry's SDK,
// an exporter or a database, in a module of its own so that nothing of those gets into the
// go.mod that users download.
package telemetrytest
