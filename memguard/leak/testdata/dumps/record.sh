#!/bin/sh
# Records the dumps in this directory: ./record.sh 1.22.12 [1.27.3 ...]
# Each release is fetched by the go command (GOTOOLCHAIN). Paths are trimmed.
set -eu
cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
for v in "$@"; do
	minor=${v#1.}; minor=${minor%%.*}
	mkdir -p "$tmp/$v"
	cp producer/*.go "$tmp/$v"
	printf 'module producer\n\ngo 1.%s\n' "$minor" >"$tmp/$v/go.mod"
	root=$(GOTOOLCHAIN=go$v go env GOROOT)
	exp=
	[ "$minor" = 26 ] && exp=goroutineleakprofile
	(cd "$tmp/$v" && env GOENV=off GOFLAGS= GOTOOLCHAIN=local GOROOT="$root" GOEXPERIMENT=$exp \
		"$root/bin/go" build -trimpath -o p .)
	p=$tmp/$v/p
	export GODEBUG=tracebacklabels=1
	"$p" 0 >"go$v.debug0.pb.gz"
	"$p" 1 >"go$v.debug1.txt"
	"$p" 2 ${WAIT:-0} >"go$v.debug2.txt"
	GOTRACEBACK=all "$p" panic 2>"go$v.panic.txt" || true
	GOTRACEBACK=system "$p" panic 2>"go$v.system.txt" || true
	if [ "$minor" -ge 26 ]; then
		"$p" leak0 >"go$v.leak0.pb.gz"
		"$p" leak2 >"go$v.leak2.txt"
	fi
done
