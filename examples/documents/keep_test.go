package main

import (
	_ "github.com/ThreeDotsLabs/watermill/message"
	_ "github.com/coder/websocket"
	_ "github.com/failsafe-go/failsafe-go/failsafegrpc"
	_ "github.com/failsafe-go/failsafe-go/failsafehttp"
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "go.opentelemetry.io/otel"
	_ "go.opentelemetry.io/otel/sdk/trace"
	_ "go.opentelemetry.io/otel/sdk/trace/tracetest"
	_ "go.opentelemetry.io/otel/trace"
	_ "go.uber.org/goleak"
	_ "google.golang.org/grpc"
	_ "google.golang.org/grpc/health"
	_ "google.golang.org/protobuf/proto"
	_ "modernc.org/sqlite"

	_ "github.com/gotidings/tidings/bus"
	_ "github.com/gotidings/tidings/realtime"
	_ "github.com/gotidings/tidings/telemetry"
	_ "github.com/gotidings/tidings/transports/rabbitmq"
	_ "github.com/gotidings/tidings/transports/sql"
)
