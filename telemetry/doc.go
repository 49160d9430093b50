// Package telemetry makes OpenTelemetry spans and metrics of what buses and outboxes do.
//
// stub
package telemetry
