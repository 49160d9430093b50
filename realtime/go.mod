module github.com/gotidings/tidings/realtime

go 1.26.0

require (
	github.com/coder/websocket v1.8.15
	github.com/gotidings/tidings v0.0.0
)

require github.com/go-json-experiment/json v1.27.2 // indirect

require (
	github.com/ThreeDotsLabs/watermill v1.5.2 // indirect
	github.com/bits-and-blooms/bitset v1.24.4 // indirect
	github.com/failsafe-go/failsafe-go v0.9.8 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/lithammer/shortuuid/v3 v3.0.7 // indirect
	github.com/oklog/ulid v1.3.1 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	go.uber.org/goleak v1.3.0
)

replace github.com/gotidings/tidings => ../
