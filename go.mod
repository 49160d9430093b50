module github.com/gotidings/tidings

go 1.26

require (
	github.com/ThreeDotsLabs/watermill v1.5.2 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/lithammer/shortuuid/v3 v3.0.7 // indirect
	github.com/oklog/ulid v1.3.1 // indirect
)
