// SPDX-License-Identifier: Apache-2.0

package goexe

import (
	"os"
	"syscall"
)

func identify(f *os.File) (identity, bool) {
	var st syscall.Stat_t
	if syscall.Fstat(int(f.Fd()), &st) != nil {
		return identity{}, false
	}
	return identity{
		uint64(st.Dev), st.Ino, st.Size,
		[2]int64{int64(st.Mtim.Sec), int64(st.Mtim.Nsec)}, [2]int64{int64(st.Ctim.Sec), int64(st.Ctim.Nsec)},
	}, true
}
