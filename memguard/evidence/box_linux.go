// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Box is a black box: the last records of a process, in a file that is mapped
// into its memory. To write a record is to copy 256 bytes. They are in the
// kernel's page cache at once, which is why they survive whatever ends the
// process: SIGKILL, the OOM killer, a fatal error of the runtime. They do not
// survive the machine: after a power loss or a kernel panic the file holds what
// the kernel had written back by then, up to half a minute less.
//
// The pages of the file are charged to the process's cgroup, 1 MiB unless the
// configuration says otherwise. On a disk that is page cache; the box locks it
// in memory where RLIMIT_MEMLOCK allows, because a page that was dropped would
// have to be charged anew at the moment when nothing is left. In a tmpfs (an
// emptyDir of medium Memory) it stays charged after the process has ended, for
// as long as the file is there, and so do the earlier boxes.
//
// A record may wait for the disk, if the page was being written back and the
// disk hangs. Who cannot have that puts the box in a tmpfs.
//
// The methods may be called from several goroutines.
type Box struct {
	path string

	mu      sync.Mutex // guards everything below
	file    *os.File   // its lock says that the process lives
	mem     []byte
	at      geometry
	seq     uint64
	records uint64 // written so far
	notes   uint64
	err     error            // why nothing can be written any more
	buf     [recordSize]byte // a record, before it is copied at one stroke
}

// OpenBox makes the box of this process. It is a new file, mode 0600, with all
// its disk space allocated: a disk that is full later does no harm, and one that
// is full now is an error. Of the service's earlier boxes those beyond cfg.Keep
// are removed first: the ones that were closed, then the oldest. Several
// processes may use the same directory and name.
func OpenBox(cfg BoxConfig) (*Box, error) {
	b, err := openBox(cfg)
	if err != nil {
		return nil, fmt.Errorf("evidence: black box: %w", err)
	}
	return b, nil
}

func openBox(cfg BoxConfig) (_ *Box, err error) {
	size := cmp.Or(cfg.Bytes, defaultBoxBytes)
	if least := int64(headerSize + 2*noteShare*recordSize); size < least || size > mostBoxBytes {
		return nil, fmt.Errorf("a size of %d bytes: want %d to %d", size, least, mostBoxBytes)
	}
	if cfg.Dir == "" {
		return nil, errors.New("no directory")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	service := serviceName(cfg.Service)
	b := &Box{at: slots(size)}
	// First, so that their space is free: on a small volume the new box needs it.
	if err := pruneBoxes(cfg.Dir, service, cmp.Or(cfg.Keep, 4)); err != nil {
		return nil, err
	}
	// Under a name that nobody looks at until it is locked and whole.
	b.file, err = os.CreateTemp(cfg.Dir, ".tmp-"+boxPrefix) // O_EXCL, mode 0600
	if err != nil {
		return nil, err
	}
	b.path = b.file.Name()
	defer func() {
		if err != nil {
			b.unmap()
			_ = os.Remove(b.file.Name())
			_ = b.file.Close()
		}
	}()
	if err := flock(b.file, syscall.LOCK_EX); err != nil {
		return nil, err
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	h := Header{
		Service: service, Build: cmp.Or(cfg.Build, build()), Boot: strings.TrimSpace(string(boot)),
		PID: os.Getpid(), Layout: cfg.Layout, Start: time.Now(),
	}
	if err := b.allocate(&h); err != nil {
		return nil, err
	}
	b.path = filepath.Join(cfg.Dir, boxPrefix+h.Start.UTC().Format(stamp)+"-"+service+boxSuffix)
	if err := os.Rename(b.file.Name(), b.path); err != nil {
		return nil, err
	}
	return b, nil
}

// allocate gives the file its disk space and maps it.
func (b *Box) allocate(h *Header) error {
	size := b.at.size()
	err := syscall.Fallocate(int(b.file.Fd()), 0, 0, size)
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		// Zeros that are written are allocated too, except where the file system
		// copies on write. There, and wherever else the disk fails us, a record
		// fails and not the process: see store.
		_, err = b.file.WriteAt(make([]byte, size), 0)
	}
	if err != nil {
		return &os.PathError{Op: fmt.Sprintf("allocate %d bytes", size), Path: filepath.Dir(b.file.Name()), Err: err}
	}
	b.mem, err = syscall.Mmap(int(b.file.Fd()), 0, int(size), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	// Every page is written once, so that a record meets no page fault but the
	// small one after a writeback.
	for at := headerSize; at < len(b.mem); at += headerSize {
		if err := b.store(at, []byte{0}); err != nil {
			return err
		}
	}
	if err := b.store(0, h.encode(b.at)); err != nil {
		return err
	}
	_ = syscall.Mlock(b.mem) // see Box; without the right to do so it works as well
	return nil
}

// Previous returns the boxes of the service's processes that are gone, the newest
// first: read them with [ReadBox] to learn how these ended. Each is returned to
// one caller only: it is set aside under a name ending in .old. A directory that
// is not there has none.
func Previous(dir, service string) ([]string, error) {
	gone, err := goneBoxes(dir, serviceName(service))
	if err != nil {
		return nil, fmt.Errorf("evidence: black box: %w", err)
	}
	var previous []string
	for _, path := range gone {
		if to, ok := strings.CutSuffix(path, boxSuffix); ok && os.Rename(path, to+oldSuffix) == nil { // else another start was quicker
			previous = append(previous, to+oldSuffix)
		}
	}
	return previous, nil
}

// goneBoxes lists the boxes of a service's processes that are gone, the newest
// first.
func goneBoxes(dir, service string) (gone []string, err error) {
	entries, err := os.ReadDir(dir) // in the order of names, which is that of time
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), ".tmp-"+boxPrefix) {
			removeAbandoned(path)
			continue
		}
		if of, ok := boxOf(e.Name()); !ok || of != service {
			continue
		}
		if live, err := inUse(path); err == nil && !live { // else at work, or not ours
			gone = append(gone, path)
		}
	}
	gone = futureFirst(gone, boxPrefix, time.Now())
	slices.Reverse(gone)
	return gone, nil
}

// pruneBoxes removes the boxes that are too many. What is worth keeping is
// deaths, and of these the newest.
func pruneBoxes(dir, service string, keep int) error {
	gone, err := goneBoxes(dir, service)
	if err != nil {
		return err
	}
	slices.SortStableFunc(gone, func(a, b string) int { return cmp.Compare(worth(b), worth(a)) })
	for _, path := range gone[min(keep, len(gone)):] {
		_ = os.Remove(path)
	}
	return nil
}

// worth is 2 for the box of a process that died, 1 for one that was closed and 0
// for what is no box.
func worth(path string) int {
	f, err := openRegular(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	b := make([]byte, headerSize)
	n, _ := f.ReadAt(b, 0)
	h, _, err := decodeHeader(b[:n])
	switch {
	case err != nil:
		return 0
	case h.End.IsZero():
		return 2
	}
	return 1
}

// inUse says whether the process of a box of our own lives. A box of somebody
// else's is an error.
func inUse(path string) (bool, error) {
	f, err := openRegular(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !ok || int(sys.Uid) != os.Geteuid() {
		return false, &os.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
	}
	return locked(f)
}

// locked says whether another process has the file locked. Readers that ask at
// the same time do not disturb each other: they share.
func locked(f *os.File) (bool, error) {
	err := flock(f, syscall.LOCK_SH)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return true, nil
	}
	return false, err // closing the file unlocks it
}

// flock locks a file for as long as it is open. It does not wait.
func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		if err != syscall.EINTR {
			return os.NewSyscallError("flock", err)
		}
	}
}

// Path returns the name of the box's file.
func (b *Box) Path() string { return b.path }

// Record writes a record over the oldest one. The payload is at most
// [PayloadSize] bytes. It allocates nothing and takes no system call. An error
// that wraps [ErrLost] comes again with every record.
func (b *Box) Record(at time.Time, kind byte, payload []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.write(0, b.at.records, &b.records, at, kind, payload)
}

// Note is Record for what comes seldom and shall stay: notes have an eighth of
// the box to themselves, so that no number of records can crowd them out.
func (b *Box) Note(at time.Time, kind byte, payload []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.write(b.at.records, b.at.notes, &b.notes, at, kind, payload)
}

// write writes to the ring of n slots from the first on, of which count were
// written so far.
func (b *Box) write(first, n int, count *uint64, at time.Time, kind byte, payload []byte) error {
	switch {
	case b.err != nil:
		return b.err
	case len(payload) > PayloadSize:
		return errPayload
	}
	encodeRecord(&b.buf, b.seq+1, at, kind, payload)
	slot := first + int(*count%uint64(n))
	if err := b.store(headerSize+slot*recordSize, b.buf[:]); err != nil {
		b.err = fmt.Errorf("evidence: black box: %w", err)
		return b.err
	}
	b.seq++
	*count++
	return nil
}

// store copies into the mapping. Where there is no file behind it any more (it
// was truncated, or its disk has failed) the kernel sends SIGBUS, which would
// end the process; here it is an error.
func (b *Box) store(at int, data []byte) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // of this goroutine
	defer func() {
		switch r := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }: // a runtime.Error of a fault
			err = fmt.Errorf("%w: no storage behind byte %d of %s", ErrLost, at, b.path)
		default:
			panic(r)
		}
	}()
	copy(b.mem[at:], data)
	return nil
}

// Check says whether what is written can be found: it fails with [ErrLost] when
// the file was removed or made shorter. It costs a system call; once a minute is
// often enough.
func (b *Box) Check() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return b.err
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(b.file.Fd()), &st); err != nil {
		return fmt.Errorf("evidence: black box: fstat %s: %w", b.path, err)
	}
	switch {
	case st.Nlink == 0:
		return fmt.Errorf("evidence: black box: %w: %s was removed", ErrLost, b.path)
	case st.Size < b.at.size():
		return fmt.Errorf("evidence: black box: %w: %s has %d bytes of %d", ErrLost, b.path, st.Size, b.at.size())
	}
	return nil
}

// Close marks the box: the process ended as it meant to. One without the mark
// belongs to a process that died. A second Close does nothing.
func (b *Box) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mem == nil {
		return nil
	}
	err := b.err
	if err == nil {
		var end [12]byte
		encodeEnd(end[:], time.Now())
		err = b.store(staticSize, end[:])
	}
	b.err = errClosed
	b.unmap()
	return errors.Join(err, b.file.Close())
}

func (b *Box) unmap() {
	if b.mem != nil {
		_ = syscall.Munmap(b.mem)
		b.mem = nil
	}
}

// openRegular opens a file for reading if it is one: not a link, and not a FIFO,
// which would wait.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, &os.PathError{Op: "open", Path: path, Err: cmp.Or(err, errors.New("not a regular file"))}
	}
	return f, nil
}
