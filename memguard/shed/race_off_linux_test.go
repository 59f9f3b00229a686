// SPDX-License-Identifier: Apache-2.0

//go:build !race

package shed_test

const race = false
