// SPDX-License-Identifier: Apache-2.0

#include "hold.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void use_stack(size_t n) {
	volatile char page[4096];
	page[0] = page[sizeof page - 1] = 1;
	if (n > sizeof page) use_stack(n - sizeof page);
	page[1] = 1; // what comes after the call keeps the frame
}

int hold_here(work w) {
	if (w.stack) use_stack(w.stack);
	if (!w.bytes) return 0;
	size_t n = w.bytes / w.piece;
	char **p = calloc(n, sizeof *p);
	if (!p) return -1;
	for (size_t i = 0; i < n; i++) {
		if (!(p[i] = malloc(w.piece))) return -1;
		memset(p[i], 1, w.piece);
	}
	for (size_t i = 0; i < n; i++)
		if (i % w.keep) free(p[i]);
	return 0; // p and what it holds is kept
}

static pthread_barrier_t together;
static atomic_int failures;

static void *run(void *w) {
	pthread_barrier_wait(&together); // so that malloc finds no arena idle and makes one for each
	if (hold_here(*(work *)w)) atomic_fetch_add(&failures, 1);
	pthread_barrier_wait(&together);
	for (;;) pause(); // a thread that ends gives its stack back
}

int hold_in_threads(int n, work w) {
	static work shared;
	shared = w;
	if (pthread_barrier_init(&together, 0, n + 1)) return -1;
	for (int i = 0; i < n; i++) {
		pthread_t id;
		if (pthread_create(&id, 0, run, &shared)) return -1;
	}
	pthread_barrier_wait(&together);
	pthread_barrier_wait(&together);
	return failures ? -1 : 0;
}
