// SPDX-License-Identifier: Apache-2.0

//go:build linux && cgo

package main

/*
#cgo LDFLAGS: -pthread
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33) // mallinfo2(3)

enum { is_glibc = 1 };

static int mapped_blocks(void) { return mallinfo2().hblks; }
static int trim(void) { return malloc_trim(0); }

#else

enum { is_glibc = 0 };

static int mapped_blocks(void) { return 0; }
static int trim(void) { return 0; }

#endif

enum { size = 2 << 10, keep = 50, most = 64 };

static void **blocks[most];
static pthread_t threads[most];
static int count;

static void *allocate(void *at)
{
	void **b = calloc(count, sizeof *b);
	for (int i = 0; b && i < count; i++)
		if ((b[i] = malloc(size)))
			memset(b[i], 1, size);
	*(void ***)at = b;
	return NULL;
}

// fill allocates from so many threads at the same time, each of which gets an
// arena of its own, and returns how many began.
static int fill(int n, int bytes)
{
	count = bytes / size;
	int begun = 0;
	while (begun < n && begun < most && !pthread_create(&threads[begun], NULL, allocate, &blocks[begun]))
		begun++;
	for (int i = 0; i < begun; i++)
		pthread_join(threads[i], NULL);
	return begun;
}

// thin frees all but one of keep.
static void thin(int n)
{
	for (int t = 0; t < n; t++)
		for (int i = 0; blocks[t] && i < count; i++)
			if (i % keep)
				free(blocks[t][i]);
}
*/
import "C"

import "fmt"

// cgo tells that the C library is at hand.
const cgo = true

var errNotGlibc = fmt.Errorf("%w: the C library is not glibc, or older than 2.33", errNotHere)

func measureChunk() (f chunkFigures, err error) {
	if C.is_glibc == 0 {
		return f, errNotGlibc
	}
	f.Size, f.NextSize = 256<<10, 200<<10
	before := int(C.mapped_blocks())
	block := C.malloc(C.size_t(f.Size))
	f.Mapped = int(C.mapped_blocks()) - before
	C.free(block)
	f.Freed = int(C.mapped_blocks()) - before
	next := C.malloc(C.size_t(f.NextSize))
	f.NextCount = int(C.mapped_blocks()) - before
	C.free(next)
	return f, nil
}

func measureArenas() (f arenaFigures, err error) {
	if C.is_glibc == 0 {
		return f, errNotGlibc
	}
	const each = 12 * mib
	steps := []struct {
		to *uint64
		do func()
	}{
		{&f.Before, func() {}},
		{&f.Full, func() { f.Threads = int(C.fill(8, each)) }},
		{&f.Freed, func() { C.thin(C.int(f.Threads)) }},
		{&f.Go, func() { collectHard(2) }},
		{&f.Trimmed, func() { C.trim() }},
	}
	for _, s := range steps {
		s.do()
		r, err := readResident()
		if err != nil {
			return f, err
		}
		*s.to = r.RSS
	}
	return f, nil
}
