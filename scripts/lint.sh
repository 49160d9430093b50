#!/bin/sh
# Lints every module of go.work: golangci-lint, gofumpt, and go mod tidy. Runs all
# three whatever the first ones find.
set -eu
cd "$(dirname "$0")/.."

golangci=$(scripts/tool.sh golangci-lint)
gofumpt=$(scripts/tool.sh gofumpt)

status=0
fail() {
	echo "lint: $1" >&2
	status=1
}

dirs=$(go list -m -f '{{.Dir}}')
while read -r dir; do
	name=.${dir#"$PWD"}
	if ! packages=$(cd "$dir" && go list ./... 2>/dev/null); then
		(cd "$dir" && go list ./... >/dev/null) || fail "go list: $name"
		continue
	fi
	# A module that has no package yet has nothing to lint, and go mod tidy would take
	# away the requirements that it is made for.
	[ -n "$packages" ] || continue
	(cd "$dir" && "$golangci" run ./... </dev/null) || fail "golangci-lint: $name"
	# Without the workspace, which would hide what the module's own go.mod lacks.
	(cd "$dir" && GOWORK=off go mod tidy -diff) || fail "go.mod is not tidy: cd $name && GOWORK=off go mod tidy"
done <<EOF
$dirs
EOF

unformatted=$("$gofumpt" -l .)
[ -z "$unformatted" ] || fail "not formatted, run make fmt:
$unformatted"

[ $status != 0 ] || echo "lint: all clean"
exit $status
