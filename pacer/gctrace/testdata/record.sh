#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Records testdata/goX.Y.Z*.txt anew: builds producer with each Go release and
# keeps what the runtime prints on standard error. Run it from this directory;
# "sh record.sh go1.22.12 ..." records only the named releases. A release that
# is not in the module cache is downloaded with GOTOOLCHAIN.
#
# The -service and -idle recordings come from other programs of the same
# releases and are not made here.
set -eu

releases=${*:-"go1.9.7 go1.10.8 go1.11.13 go1.12.17 go1.13.15 go1.14.15
	go1.15.15 go1.16.15 go1.17.13 go1.18.10 go1.19.13 go1.20.14 go1.21.13 go1.22.12
	go1.23.12 go1.24.13 go1.25.8 go1.26.8 go1.27.3"}

cache=$(go env GOMODCACHE)/golang.org
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT

# run FILE GODEBUG MODE [ENV...]
run() {
	out=$1 debug=$2 mode=$3
	shift 3
	env "$@" GODEBUG="$debug" GOMAXPROCS=2 "$bin/producer" -mode "$mode" 2>"$out"
	echo "$out: $(wc -l <"$out") lines"
}

for go in $releases; do
	if [ "$go" = "$(go env GOVERSION)" ]; then
		root=$(go env GOROOT)
	else
		root=$cache/toolchain@v0.0.1-$go.linux-amd64
		[ -d "$root" ] || (cd "$bin" && GOTOOLCHAIN=$go go version >/dev/null 2>&1) || :
	fi
	[ -d "$root" ] || { echo "$go: no toolchain" >&2; continue; }
	env -i PATH="$PATH" HOME="$bin" GOROOT="$root" GOENV=off GOTOOLCHAIN=local GO111MODULE=off \
		GOCACHE="$bin/cache" GOPATH="$bin/gopath" \
		"$root/bin/go" build -o "$bin/producer" producer/main.go || { echo "$go: does not build" >&2; continue; }

	run "$go.txt" gctrace=1,scavtrace=1 mixed
	run "$go-pacer.txt" gctrace=2,scavtrace=1,gcpacertrace=1 leak
	run "$go-off.txt" gctrace=1,scavtrace=1 off GOGC=off
	[ "$go" != go1.26.8 ] || run torn.txt gctrace=1 torn
done
