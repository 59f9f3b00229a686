// SPDX-License-Identifier: Apache-2.0

//go:build !race

package evidence

// raced says whether the race detector is in this binary.
const raced = false
