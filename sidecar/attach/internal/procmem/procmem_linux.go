// SPDX-License-Identifier: Apache-2.0

package procmem

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Mem is the memory of another process. It is not safe for concurrent use.
type Mem struct {
	Cost Cost // since it was opened
	pid  int
	file *os.File // /proc/PID/mem, where process_vm_readv(2) is not to be had
	iovs []unix.RemoteIovec
}

// maxIovs is the kernel's limit of pieces for one call (UIO_MAXIOV).
const maxIovs = 1024

// Open opens the memory of a process. Nothing is read yet, so the right to do so
// shows at the first read only, unless /proc/PID/mem is needed.
func Open(pid int) (*Mem, error) {
	m := &Mem{pid: pid}
	// No pieces: tells whether the kernel, or its seccomp filter, has the call.
	_, err := unix.ProcessVMReadv(os.Getpid(), nil, nil, 0)
	if err == unix.ENOSYS || err == unix.EPERM {
		return m, m.UseFile()
	}
	return m, nil
}

// UseFile goes over to /proc/PID/mem.
func (m *Mem) UseFile() error {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", m.pid))
	if err != nil {
		return fmt.Errorf("procmem: %w", err)
	}
	m.file = f
	return nil
}

// Close closes what is open.
func (m *Mem) Close() error {
	if m.file != nil {
		return m.file.Close()
	}
	return nil
}

// How names the way of reading.
func (m *Mem) How() string {
	if m.file != nil {
		return "/proc/PID/mem"
	}
	return "process_vm_readv"
}

// Read reads len(b) bytes at addr, all or nothing.
func (m *Mem) Read(addr uint64, b []byte) error {
	return m.ReadAll([]Range{{addr, len(b)}}, b)
}

// ReadAll reads all pieces one after the other into b, whose length is the sum
// of theirs. The first piece that could not be read as a whole gives an *Error;
// those before it are in b.
func (m *Mem) ReadAll(rs []Range, b []byte) error {
	for len(rs) > 0 {
		n := min(len(rs), maxIovs)
		size := 0
		for _, r := range rs[:n] {
			if r.Len < 0 || r.Len > len(b)-size {
				return &Error{r, errors.New("no room for it")}
			}
			size += r.Len
		}
		if err := m.readSome(rs[:n], b[:size]); err != nil {
			return err
		}
		rs, b = rs[n:], b[size:]
	}
	return nil
}

func (m *Mem) readSome(rs []Range, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if m.file != nil {
		return m.pread(rs, b)
	}
	m.iovs = m.iovs[:0]
	for _, r := range rs {
		m.iovs = append(m.iovs, unix.RemoteIovec{Base: uintptr(r.Addr), Len: r.Len})
	}
	local := unix.Iovec{Base: unsafe.SliceData(b)}
	local.SetLen(len(b))
	n, err := unix.ProcessVMReadv(m.pid, []unix.Iovec{local}, m.iovs, 0)
	m.Cost.Calls++
	if err != nil {
		n = 0
	}
	m.Cost.Bytes += uint64(n)
	if n == len(b) {
		return nil
	}
	// A short count says how far it came (process_vm_readv(2)).
	for _, r := range rs {
		if n < r.Len {
			switch {
			case err == unix.ESRCH:
				return &Error{r, ErrGone}
			case err == nil:
				err = unix.EFAULT
			}
			return &Error{r, err}
		}
		n -= r.Len
	}
	return nil
}

func (m *Mem) pread(rs []Range, b []byte) error {
	for _, r := range rs {
		if r.Addr > 1<<63-1 { // a file offset is signed
			return &Error{r, unix.EFAULT}
		}
		n, err := unix.Pread(int(m.file.Fd()), b[:r.Len], int64(r.Addr))
		m.Cost.Calls++
		m.Cost.Bytes += uint64(max(n, 0))
		if n == 0 && err == nil {
			err = ErrGone // the address space is gone (fs/proc/base.c, mem_rw)
		}
		if n != r.Len {
			if err == nil || err == unix.EIO {
				err = unix.EFAULT
			}
			return &Error{r, err}
		}
		b = b[r.Len:]
	}
	return nil
}
