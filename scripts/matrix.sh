#!/bin/sh
# Runs the suites that need a server on every supported version of it: internal/matrix.
# Arguments are passed on to go test: -run 'TestMatrix/rabbitmq-4.3' runs one version, and
# -skip leaves some out.
#
# On Debian as root, the versions that are missing are installed first. Elsewhere
# TIDINGS_MATRIX names servers, as internal/matrix says.
set -eu
cd "$(dirname "$0")/.."

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	scripts/roots.sh
	command -v nft >/dev/null || apt-get install -y -qq --no-install-recommends nftables >/dev/null
fi
cd internal/matrix

# Without a package, go test shows what is printed as it comes.
legs() { go test -count=1 -timeout=60m "$@" -args -matrix; }

case " $*" in
*" -run"*)
	legs "$@"
	exit
	;;
esac
# Legs wait more than they work, so brokers and databases have their turns at once.
legs -run 'TestMatrix/rabbitmq' "$@" &
status=0
legs -run 'TestMatrix/(postgresql|mariadb|mysql)' "$@" || status=$?
wait $! || status=$?
exit $status
