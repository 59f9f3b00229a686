#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Records, for each Go release named (without arguments, all of the kept ones):
# NAME.trace.gz and NAME.gctrace.txt, both of one run; NAME.tiny.gz, a trace of
# few events; for some, NAME.long.gz, a trace of several seconds. Needs the go
# command, which fetches the toolchains. Use a quiet machine: the trace and
# gctrace read the clock at different points, and a preemption between shows.
set -eu
cd "$(dirname "$0")"
[ $# -gt 0 ] || set -- 1.21.13 1.22.12 1.23.12 1.24.11 1.25.8 1.26.8 1.27.3
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
for v; do
	GOTOOLCHAIN=go$v go build -trimpath -buildvcs=false -o "$tmp/rec" .
	"$tmp/rec" tiny "$tmp/trace" 2>/dev/null
	gzip -9 -n -c "$tmp/trace" >"../go$v.tiny.gz"
	case $v in
	1.22.* | 1.25.* | 1.27.*) # each stands for a format
		"$tmp/rec" long "$tmp/trace" 2>/dev/null
		gzip -9 -n -c "$tmp/trace" >"../go$v.long.gz"
		;;
	esac
	GODEBUG=gctrace=1 "$tmp/rec" full "$tmp/trace" 2>"../go$v.gctrace.txt"
	gzip -9 -n -c "$tmp/trace" >"../go$v.trace.gz"
	ls -l "../go$v.trace.gz"
done
