#!/bin/sh
# Compiles every module, tests included, for each supported port: linux, darwin and
# windows on amd64, arm64 and 386, as far as Go has the port. Nothing is run.
set -eu
cd "$(dirname "$0")/.."

status=0
for port in $(go tool dist list | grep -E '^(linux|darwin|windows)/(amd64|arm64|386)$'); do
	export GOOS="${port%/*}" GOARCH="${port#*/}" CGO_ENABLED=0
	# go build compiles what ships; go vet type-checks the tests too.
	if go build -o /dev/null work && go vet work; then
		echo "ok      $port"
	else
		echo "FAILED  $port"
		status=1
	fi
done
exit $status
