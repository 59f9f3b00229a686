// SPDX-License-Identifier: Apache-2.0

#include <stddef.h>

// work is what a thread does. Sizes are bytes.
typedef struct {
	size_t bytes, piece; // allocates bytes in pieces, and writes to them
	size_t keep;         // keeps the first of every keep pieces and frees the others; 1 keeps all
	size_t stack;        // uses so much of its stack
} work;

// hold_in_threads has n new threads do the work at the same time. They live on.
// hold_here does it in the calling thread. Both return 0, or -1 for no memory.
int hold_in_threads(int n, work w);
int hold_here(work w);
