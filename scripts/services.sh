#!/bin/sh
# Provides, on Debian as root, the servers and programs that tests look for on this machine:
# what is missing is installed, and what is stopped is started. Elsewhere it does nothing; then
# the tests say what they lack.
#
# scripts/test.sh calls it under REQUIRE_SERVICES=1.
set -eu

[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 0

answers() { bash -c "exec 3<>/dev/tcp/127.0.0.1/$1" 2>/dev/null; }

# provide PACKAGE SERVICE PORT [URL]: tests that start servers of their own need the
# package as well. A server that the environment names, URL, is in others' hands.
provide() {
	if ! dpkg -s "$1" >/dev/null 2>&1; then
		echo "no $1: installing it"
		apt-get update -qq && apt-get install -y -qq --no-install-recommends "$1" >/dev/null || :
	fi
	[ -z "${4:-}" ] && ! answers "$3" || return 0
	echo "nothing answers at port $3: starting $2"
	service "$2" start >/dev/null || :
	for _ in $(seq 60); do
		! answers "$3" || return 0
		sleep 1
	done
	echo "$2 has not started" >&2
}

provide rabbitmq-server rabbitmq-server 5672 "${RABBITMQ_URL:-}"
provide postgresql postgresql 5432 "${POSTGRES_URL:-}"
provide mariadb-server mariadb 3306 "${MYSQL_URL:-}"

# Other versions of the servers, for private ones.
scripts/roots.sh || echo "other versions of the servers are missing" >&2

# program COMMAND PACKAGE
program() {
	! command -v "$1" >/dev/null || return 0
	echo "no $1: installing $2"
	apt-get update -qq && apt-get install -y -qq --no-install-recommends "$2" >/dev/null || :
}

program "${CHROMIUM:-chromium}" chromium
program "${NODE:-node}" nodejs
program nft nftables
program pgbouncer pgbouncer
