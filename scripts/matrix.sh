#!/bin/sh
# Runs the suites that need a server on every supported version of it: internal/matrix.
# Arguments are passed on to go test: -run 'TestMatrix/rabbitmq-4.3' runs one version.
#
# On Debian as root, the versions that are missing are installed first. Elsewhere
# TIDINGS_MATRIX names servers, as internal/matrix says.
set -eu
cd "$(dirname "$0")/.."

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	scripts/roots.sh
fi
cd internal/matrix
# Without a package, go test shows what is printed as it comes.
exec go test -count=1 -timeout=60m "$@" -args -matrix
