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
echo "go test${race:+ $race} -shuffle=on -count=1${*:+ $*} work"
go test $race -shuffle=on -count=1 "$@" work || status=$?
[ -z "$note" ] || echo "$note"
if [ -n "$race" ] && [ $# = 0 ]; then # what events may allocate, which the race detector changes
	go test -count=1 -run '^TestAllocationsPerEvent$' ./bench || status=$?
fi
exit $status
