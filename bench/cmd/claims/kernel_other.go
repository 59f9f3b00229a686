// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import "fmt"

var errNotLinux = fmt.Errorf("%w: it is about Linux", errNotHere)

func measureAdvice() (adviceFigures, error) { return adviceFigures{}, errNotLinux }

func measureRefill() (refillFigures, error) { return refillFigures{}, errNotLinux }
