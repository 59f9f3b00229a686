// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package main

/*
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_barrier_t ready;
typedef struct { size_t bytes; void *first, *local; } job;

// Blocks below the mmap threshold of 128 KiB come from the thread's arena.
static void *work(void *arg) {
	job *j = arg;
	char local = 0;
	size_t n;
	j->local = &local;
	for (n = 0; n < j->bytes; n += 64 << 10) {
		void *p = malloc(64 << 10);
		memset(p, 1, 64 << 10);
		if (n == 0) j->first = p;
	}
	pthread_barrier_wait(&ready);
	pause();
	return local ? arg : NULL;
}

static void run(job *jobs, int n) {
	int i;
	pthread_barrier_init(&ready, NULL, n + 1);
	for (i = 0; i < n; i++) {
		pthread_t t;
		pthread_create(&t, NULL, work, &jobs[i]);
	}
	pthread_barrier_wait(&ready);
}

static void *brk_block(void) { return sbrk(0) - 1; }
*/
import "C"

import (
	"unsafe"
)

func init() {
	mallocs = func(mib, threads int) {
		if mib == 0 {
			return
		}
		jobs := (*[1 << 10]C.job)(C.calloc(C.size_t(threads), C.sizeof_job))[:threads:threads]
		for i := range jobs {
			jobs[i].bytes = C.size_t(mib << 20 / threads)
		}
		C.run(&jobs[0], C.int(threads))
		for _, j := range jobs {
			truth("libc-arena", unsafe.Pointer(j.first), 64<<10, "malloc")
			truth("stack", unsafe.Pointer(j.local), 1, "C stack")
		}
		truth("brk", C.brk_block(), 1, "break")
	}
}
