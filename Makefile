# Needs Go, git and make; `make help` lists the targets.

# Every command works on the modules of this go.work, whatever the environment says.
export GOWORK := $(CURDIR)/go.work

FUZZTIME ?= 10s
TESTFLAGS ?=
BENCHFLAGS ?=

.DEFAULT_GOAL := help
.PHONY: help test matrix lint fmt fuzz bench benchfull cover cross clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 10

test: ## run all tests (TESTFLAGS='-run X' narrows, REQUIRE_SERVICES=1 forbids skipping)
	@scripts/test.sh $(TESTFLAGS)

matrix: ## run the tests on all supported versions of the servers (TESTFLAGS='-run TestMatrix/rabbitmq-4.3')
	@scripts/matrix.sh $(TESTFLAGS)

lint: ## golangci-lint, gofumpt and go mod tidy, with pinned tools
	@scripts/lint.sh

fmt: ## format the code
	@"$$(scripts/tool.sh gofumpt)" -w .

fuzz: ## run each fuzz target for FUZZTIME (10s)
	@FUZZTIME=$(FUZZTIME) scripts/fuzz.sh

bench: ## compare with the peers and the targets, 7 minutes (BENCHFLAGS='-run X' narrows)
	go run ./bench -targets $(BENCHFLAGS)

benchfull: ## the same in 7 rounds, written to bench/RESULTS.md
	go run ./bench -targets -rounds 7 -results bench/RESULTS.md $(BENCHFLAGS)

cover: ## test coverage of the library; go tool cover -html=cover.out shows the lines
	go test -count=1 -coverpkg=./... -coverprofile=cover.out ./...
	@go tool cover -func=cover.out | tail -n 1

cross: ## compile all modules for every supported platform
	@scripts/cross.sh

clean: ## remove what the other targets made
	rm -rf bin cover.out
