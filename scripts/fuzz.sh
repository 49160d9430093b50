#!/bin/sh
# Runs each fuzz target of every module for FUZZTIME (default 10s).
set -eu
cd "$(dirname "$0")/.."

targets=$(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed 's/:func /:/' | sort)
if [ -z "$targets" ]; then
	echo "no fuzz targets"
	exit
fi
for target in $targets; do
	file=${target%%:*}
	name=${target##*:}
	echo "== $name in ${file%/*}"
	go test -run '^$' -fuzz "^$name\$" -fuzztime "${FUZZTIME:-10s}" "${file%/*}"
done
