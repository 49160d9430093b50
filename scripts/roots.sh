#!/bin/sh
# Installs other releases of Debian, with the servers that tests start from them, into folders
# of ${TIDINGS_ROOTS:-/var/cache/tidings/roots}. It needs Debian and root, takes some minutes and
# about 700 MB for each release, and adds what is missing to one that is there.
#
#	scripts/roots.sh                 all that internal/testserver has versions of
#	scripts/roots.sh trixie sid      these
#
# The mirror and the settings for downloads are those of this machine's apt.
set -eu

# A release's servers; internal/testserver/versions.go says which of them are run.
packages() {
	case $1 in
	bookworm) echo rabbitmq-server postgresql-15 mariadb-server mariadb-client ;;
	trixie) echo rabbitmq-server postgresql-17 mariadb-server mariadb-client ;;
	sid) echo rabbitmq-server postgresql-18 mysql-server ;;
	*) echo "roots.sh: no packages are known for Debian $1" >&2 && return 1 ;;
	esac
}

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "roots.sh: needs root on Debian" >&2
	exit 1
fi

roots=${TIDINGS_ROOTS:-/var/cache/tidings/roots}
mkdir -p "$roots"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
exec 9>"$roots/.lock"
flock 9 # another run may be at it

# try COMMAND...: a mirror may fail now and then; what fails three times is shown.
try() {
	for wait in 5 30 ""; do
		"$@" >"$log" 2>&1 </dev/null && return
		[ -n "$wait" ] || break
		echo "again in $wait s: $*"
		sleep "$wait"
	done
	echo "roots.sh: failed: $*" >&2
	tail -n 100 "$log" >&2
	return 1
}

# mirror prints the first archive of packages that apt knows.
mirror() {
	apt-get indextargets --format '$(REPO_URI) $(CREATED_BY)' | sed -n 's/ Packages$//p' | head -n 1
}

bootstrap() { # suite folder
	umount -R "$2.new/proc" 2>/dev/null || : # of a run that was interrupted
	rm -rf --one-file-system "$2.new" &&
		debootstrap --variant=minbase "$1" "$2.new" "$(mirror)" &&
		mv "$2.new" "$2"
}

install() { # folder package...
	dir=$1
	shift
	set -- sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends -o DPkg::Options::=--force-unsafe-io "$@"' sh "$@"
	chroot "$dir" env DEBIAN_FRONTEND=noninteractive "$@"
}

root() { # suite package...
	suite=$1 dir=$roots/$1
	shift
	if [ ! -e "$dir/usr" ]; then
		if ! command -v debootstrap >/dev/null; then
			try apt-get update -qq
			try apt-get install -y -qq --no-install-recommends debootstrap
		fi
		echo "$dir: installing Debian $suite"
		try bootstrap "$suite" "$dir"
	fi
	mountpoint -q "$dir/proc" || mount -t proc proc "$dir/proc"
	mountpoint -q "$dir/dev" || mount --bind /dev "$dir/dev"
	cp -L /etc/hosts /etc/resolv.conf "$dir/etc/"
	chroot "$dir" dpkg -s "$@" >/dev/null 2>&1 && return

	echo "$dir: installing $*"
	printf '#!/bin/sh\nexit 101\n' >"$dir/usr/sbin/policy-rc.d" # a package starts no service
	chmod 755 "$dir/usr/sbin/policy-rc.d"
	# An index of sid may be older than its validity.
	{
		apt-config dump | grep -iE '^Acquire::.*(Proxy|Check-)' || :
		echo 'Acquire::Check-Valid-Until "false";'
	} >"$dir/etc/apt/apt.conf.d/90machine"
	try install "$dir" "$@"
}

. /etc/os-release
[ $# != 0 ] || for suite in bookworm trixie sid; do
	[ "$suite" = "${VERSION_CODENAME:-}" ] || set -- "$@" "$suite" # this machine's are installed by scripts/services.sh
done
for suite; do
	list=$(packages "$suite")
	root "$suite" procps $list
done
