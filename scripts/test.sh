#!/bin/sh
# Runs the tests of every module of go.work, with the race detector where it works.
# Arguments are passed on to go test.
#
# REQUIRE_SERVICES=1 makes a failure of what would otherwise be left out: here the
# race detector, in the tests whatever they need and can't find. What is missing is
# installed first, where that is possible.
set -eu
cd "$(dirname "$0")/.."

# The race detector needs cgo, so a C compiler with its headers, and a port that
# supports it. Building the package that needs all three answers for all three.
race_works() { go build -race runtime/cgo >/dev/null 2>&1; }

require=${REQUIRE_SERVICES:-}
if [ "$require" = 1 ] && ! race_works && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo "no C compiler: installing gcc"
	apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null || :
fi

[ "$require" != 1 ] || scripts/services.sh

race=-race note=
if ! race_works; then
	race= note="NOTE: without -race, which needs a C compiler (apt-get install gcc libc6-dev) and a port that supports it"
	if [ "$require" = 1 ]; then
		echo "$note; REQUIRE_SERVICES=1 demands it" >&2
		exit 1
	fi
	echo "$note"
fi

# "work" is every package of every module of go.work; a module that has none yet is
# passed over.
status=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# tests runs go test with the arguments, and leaves what it said in $log and its status in $status.
tests() {
	{ go test $race -shuffle=on -count=1 "$@" 2>&1 || echo $? >"$log.status"; } | tee "$log"
	status=$(cat "$log.status" 2>/dev/null || echo 0)
	rm -f "$log.status"
}

echo "go test${race:+ $race} -shuffle=on -count=1${*:+ $*} work"
tests "$@" work

# The race detector itself dies now and then ("ThreadSanitizer: CHECK failed"), which says
# nothing about a test. Where that is all that has happened, those packages run once more.
if [ "$status" != 0 ] && grep -q '^ThreadSanitizer: CHECK failed' "$log" && ! grep -q -e '^ *--- FAIL' -e 'WARNING: DATA RACE' -e '^panic: ' "$log"; then
	died=$(sed -n 's/^FAIL[[:space:]]\{1,\}\([^[:space:]]\{1,\}\).*/\1/p' "$log")
	echo "AGAIN: the race detector died, and nothing failed:" $died
	tests "$@" $died
fi
[ -z "$note" ] || echo "$note"
if [ -n "$race" ] && [ $# = 0 ]; then # what events may allocate, which the race detector changes
	go test -count=1 -run '^TestAllocationsPerEvent$' ./bench || status=$?
fi
exit $status
