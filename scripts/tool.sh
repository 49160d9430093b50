#!/bin/sh
# Prints the path of a pinned development tool: one that is installed already, in
# ./bin, GOBIN, GOPATH/bin or PATH, if it has the pinned version, else a new one in
# ./bin.
#
#	scripts/tool.sh golangci-lint|gofumpt
set -eu
cd "$(dirname "$0")/.."

case ${1:-} in
golangci-lint) version=v2.15.0 package=github.com/golangci/golangci-lint/v2/cmd/golangci-lint ;;
gofumpt) version=v0.12.0 package=mvdan.cc/gofumpt ;;
*) echo "usage: $0 golangci-lint|gofumpt" >&2 && exit 2 ;;
esac

# is_pinned says whether the program $1 reports the pinned version.
is_pinned() {
	[ -x "$1" ] || return 1
	case $package in
	*/golangci-lint) [ "v$("$1" version --short 2>/dev/null | sed 's/^v//')" = "$version" ] ;;
	*/gofumpt) [ "$("$1" -version 2>/dev/null | cut -d' ' -f1)" = "$version" ] ;;
	esac
}

exe=$1$(go env GOEXE)
for found in "$PWD/bin/$exe" "$(go env GOBIN)/$exe" "$(go env GOPATH)/bin/$exe" "$(command -v "$exe" || :)"; do
	if is_pinned "$found"; then
		echo "$found"
		exit
	fi
done

echo "installing $1 $version into ./bin; golangci-lint takes some minutes, once" >&2
mkdir -p bin
# Downloads are reported on standard error, hundreds of lines; they matter only when
# the installation fails.
if ! log=$(GOBIN=$PWD/bin GOWORK=off GOFLAGS= GOOS= GOARCH= go install "$package@$version" 2>&1); then
	echo "$log" >&2
	exit 1
fi
echo "$PWD/bin/$exe"
