// SPDX-License-Identifier: Apache-2.0

package smaps

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNames(t *testing.T) {
	t.Parallel()
	const anon = "00000000 00:00 0 "
	for _, tc := range []struct {
		perms, file, path string
		want              Kind
	}{
		{"rw-p", anon, "[anon: Go: heap]", GoHeap},
		{"---p", anon, "[anon: Go: heap reservation]", GoHeap},
		{"rw-p", anon, "[anon: Go: user arena chunk]", GoHeap},
		{"rw-p", anon, "[anon: Go: OS thread stack]", Stack},
		{"rw-p", anon, "[anon: Go: goroutine stack (system)]", Stack},
		{"rw-p", anon, "[anon: Go: heap index]", GoMetadata},
		{"rw-p", anon, "[anon: Go: immortal metadata]", GoMetadata},
		{"rw-p", anon, "[anon: Go: page alloc]", GoMetadata},
		{"rw-p", anon, "[anon: Go: page alloc index]", GoMetadata},
		{"---p", anon, "[anon: Go: page summary]", GoMetadata},
		{"---p", anon, "[anon: Go: scavenge index]", GoMetadata},
		{"rw-p", anon, "[anon: Go: gc bits]", GoMetadata},
		{"rw-p", anon, "[anon: Go: allspans array]", GoMetadata},
		{"rw-p", anon, "[anon: Go: profiler hash buckets]", GoMetadata},
		{"rw-p", anon, "[anon: Go: GC span queue]", GoMetadata},
		{"rw-p", anon, "[anon: Go: trace buffer]", GoMetadata},
		{"rw-p", anon, "[anon: Go: what a later release may add]", GoMetadata},
		{"rw-p", anon, "[anon: glibc: malloc arena]", LibcArena},
		{"rw-p", anon, "[anon: glibc: malloc]", LibcArena},
		{"rw-p", anon, "[anon: glibc: pthread stack: 4711]", Stack},
		{"rw-p", anon, "[anon: glibc: loader malloc]", LibcArena},
		{"rw-p", anon, "[anon:stack_and_tls:4711]", Stack},
		{"rw-p", anon, "[anon:my cache]", Anon},
		{"rw-s", "00000000 00:01 5 ", "[anon_shmem:my pool]", Shmem},
		{"rw-p", anon, "[heap]", Brk},
		{"rw-p", anon, "[stack]", Stack},
		{"rw-p", anon, "[stack:4711]", Stack},
		{"r-xp", anon, "[vdso]", Special},
		{"r--p", anon, "[vvar]", Special},
		{"r--p", anon, "[vvar_vclock]", Special},
		{"--xp", anon, "[vsyscall]", Special},
		{"--xp", anon, "[uprobes]", Special},
		{"rw-s", "00000000 00:0e 9 ", "anon_inode:[io_uring]", Special},
		{"rw-s", "00000000 00:0f 9 ", "/[aio] (deleted)", Special},
		{"rw-s", "00000000 00:08 9 ", "socket:[4711]", Special},
		{"rw-s", "00000000 00:01 9 ", "/dev/zero (deleted)", Shmem},
		{"rw-p", "00000000 00:05 9 ", "/dev/zero", Anon},
		{"rw-s", "00000000 00:01 9 ", "/memfd:wayland (deleted)", Shmem},
		{"rw-p", "00000000 00:01 9 ", "/memfd:jit (deleted)", Shmem},
		{"rw-s", "00000000 00:01 9 ", "/SYSV0000002a (deleted)", Shmem},
		{"rw-s", "00000000 00:1a 9 ", "/dev/shm/queue", Shmem},
		{"rw-p", "00000000 00:0d 9 ", "/anon_hugepage (deleted)", Anon},
		{"rw-s", "00000000 00:0d 9 ", "/anon_hugepage (deleted)", Shmem},
		{"rw-s", "00000000 00:0d 9 ", "/dev/hugepages/pool", Shmem},
		{"rw-s", anon, "", Shmem},
		{"r-xp", anon, "", Anon}, // just compiled
		{"rw-p", anon, "", Anon},
		{"r--s", "00000000 fe:00 9 ", "/var/lib/db", File},
		{"r-xp", "00000000 fe:00 9 ", "/opt/exe", Binary},
		{"r-xp", "00000000 fe:00 9 ", "/opt/exe (deleted)", Binary},
	} {
		line := "7f0000000000-7f0000001000 " + tc.perms + " " + tc.file
		if tc.path != "" {
			line = fmt.Sprintf("%-72s %s", line, tc.path)
		}
		p, err := Parse(strings.NewReader(line+"\n"), Hints{Exe: "/opt/exe"})
		require.NoError(t, err)
		require.Len(t, p.Mappings, 1, line)
		assert.Equal(t, tc.path, p.Mappings[0].Path)
		assert.Equal(t, tc.want, p.Mappings[0].Kind, "%s is %v", line, p.Mappings[0].Kind)
	}
}

// TestShapes has address spaces that this machine's kernel or Go does not make. A line is
// "start-end perms flags... = kind"; the sizes are what matters.
func TestShapes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		hints Hints
		text  string
	}{
		{"one huge run of a kernel before 6.7, 200 MiB of the program merged below the tables", Hints{Go: true}, `
c000000000-c000400000 rw-p rd wr ac = go-heap
c000400000-c004000000 ---p mr = go-heap
7f5a00000000-7f5a0ee00000 rw-p rd wr ac = anon
7f5a0ee00000-7f5a1ef80000 ---p mr = go-metadata
7f5a1ef80000-7f5a1ef81000 rw-p rd wr ac = go-metadata
7f5a1ef81000-7f5a53642000 ---p mr = go-metadata`},
		{"the same without the program's", Hints{Go: true}, `
c000000000-c000400000 rw-p rd wr ac = go-heap
c000400000-c004000000 ---p mr = go-heap
7f5a0cc00000-7f5a0ee00000 rw-p rd wr ac = go-metadata
7f5a0ee00000-7f5a1ef80000 ---p mr = go-metadata
7f5a1ef80000-7f5a1ef81000 rw-p rd wr ac = go-metadata
7f5a1ef81000-7f5a53642000 ---p mr = go-metadata`},
		{"no Go: nothing is Go's", Hints{}, `
c000000000-c000400000 rw-p rd wr ac = anon
c000400000-c004000000 ---p mr = anon
7f5a0ee00000-7f5a1ef80000 ---p mr = anon`},
		{"a heap that had to move in among the libraries, by address", Hints{HeapAddrs: []uint64{0x7f5a04001000}}, `
7f5a00000000-7f5a00021000 rw-p rd wr nr = libc-arena
7f5a00021000-7f5a04000000 ---p mr nr = libc-arena
7f5a04000000-7f5a04400000 rw-p rd wr ac = go-heap
7f5a04400000-7f5a08000000 ---p mr = go-heap
7f5a08000000-7f5a0e801000 rw-p rd wr ac = anon
7f5a0e801000-7f5a2e801000 ---p mr = go-metadata`},
		{"the area of mappings may begin at 0x6fff00000000 and the heap above it", Hints{Go: true}, `
6fff00000000-6fff04000000 rw-p rd wr ac = anon
6fff04000000-6fff2e801000 ---p mr = go-metadata
7f1230000000-7f1232000000 ---p mr = go-heap
7f1232000000-7f1238000000 rw-p rd wr ac = go-heap`},
		{"an aligned mapping of the program is no heap when the address is known", Hints{HeapAddrs: []uint64{0xc000000000}}, `
c000000000-c000400000 rw-p rd wr ac = go-heap
c000400000-c004000000 ---p mr = go-heap
200000000000-200010000000 rw-p rd wr ac = anon`},
		{"ranges decide", Hints{HeapRanges: []Range{{0x200000000000, 0x200010000000}}}, `
c000000000-c004000000 rw-p rd wr ac = anon
200000000000-200010000000 rw-p rd wr ac = go-heap`},
		{"glibc arenas without overcommit have no nr", Hints{Go: true}, `
c000000000-c004000000 rw-p rd wr ac = go-heap
7f5a00000000-7f5a00021000 rw-p rd wr ac = libc-arena
7f5a00021000-7f5a04000000 ---p mr = libc-arena
7f5a0e801000-7f5a2e801000 ---p mr = go-metadata`},
		{"a full arena and its neighbour", Hints{}, `
7f5a00000000-7f5a04000000 rw-p rd wr nr = libc-arena
7f5a04000000-7f5a04021000 rw-p rd wr nr = libc-arena
7f5a04021000-7f5a08000000 ---p mr nr = libc-arena`},
		{"the race detector's shadow is no arena", Hints{Go: true}, `
c000000000-c004000000 rw-p rd wr ac = go-heap
218000000000-218010000000 rw-p rd wr nr nh = anon
306000000000-306004000000 rw-p rd wr nr nh = anon`},
		{"thread stacks: glibc, a large guard, MAP_GROWSDOWN", Hints{}, `
7f5a00000000-7f5a00001000 ---p mr nh = stack
7f5a00001000-7f5a00801000 rw-p rd wr ac nh = stack
7f5a00801000-7f5a00811000 ---p mr nh = stack
7f5a00811000-7f5a01011000 rw-p rd wr ac nh = stack
7f5a02000000-7f5a02021000 rw-p rd wr gd ac = stack
7f5a03000000-7f5a03021000 rw-p rd wr ac = anon`},
		{"a stack whose guard is inside it (glibc 2.42 on Linux 6.18)", Hints{Go: true}, `
7f5a00000000-7f5a00801000 rw-p rd wr ac nh gu = stack`},
		{"bss of the executable and of a library, and what is too big for the latter", Hints{Exe: "/x"}, `
00400000-00500000 r-xp /x = binary
00500000-00501000 rw-p /x = binary
00501000-04501000 rw-p rd wr ac = binary
04501000-04601000 rw-p [heap] = brk
7f5a00000000-7f5a00100000 rw-p /lib/libc.so.6 = file
7f5a00100000-7f5a0010d000 rw-p rd wr ac = file
7f5a0010d000-7f5a00200000 rw-p /lib/libm.so.6 = file
7f5a00200000-7f5a0a200000 rw-p rd wr ac = anon
7f5a20000000-7f5a20100000 r--p /data = file
7f5a20100000-7f5a20200000 rw-p rd wr ac = anon`},
		{"no executable known: the lowest file", Hints{}, `
00400000-00500000 r-xp /x = binary
7f5a00000000-7f5a00100000 rw-p /y = file`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var text strings.Builder
			var want []string
			for line := range strings.Lines(strings.TrimSpace(tc.text)) {
				s, kind, ok := strings.Cut(strings.TrimSpace(line), " = ")
				require.True(t, ok, line)
				want = append(want, kind)
				f := strings.SplitN(s, " ", 3)
				switch f[2][0] {
				case '/':
					fmt.Fprintf(&text, "%s %s 00000000 fe:00 7 %s\n", f[0], f[1], f[2])
				case '[':
					fmt.Fprintf(&text, "%s %s 00000000 00:00 0 %s\n", f[0], f[1], f[2])
				default:
					fmt.Fprintf(&text, "%s %s 00000000 00:00 0 \nVmFlags: %s \n", f[0], f[1], f[2])
				}
			}
			p, err := Parse(strings.NewReader(text.String()), tc.hints)
			require.NoError(t, err)
			require.Empty(t, p.SyntaxErrors)
			var got []string
			for i := range p.Mappings {
				got = append(got, p.Mappings[i].Kind.String())
			}
			assert.Equal(t, want, got)
		})
	}
}

func TestVmFlags(t *testing.T) {
	t.Parallel()
	f := VmFlags("rd wr xyz ac")
	for _, code := range []string{"rd", "wr", "xyz", "ac"} {
		assert.True(t, f.Has(code), code)
	}
	for _, code := range []string{"", " ", "r", "d", "xy", "yz", "nr", "rd wr xyz ac nr"} {
		assert.False(t, f.Has(code), "%q", code)
	}
	assert.False(t, VmFlags("").Has("rd"))
}
