// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"bytes"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// identify finds out what program the process runs, and for another process
// what its environment says of the runtime's settings.
func (s *Source) identify(dir string) {
	s.process.Exe, _ = os.Readlink(dir + "/exe")
	if s.runtime != nil {
		s.process.Build = runtime.Version()
		if bi, ok := debug.ReadBuildInfo(); ok {
			s.process.Cgo = usesCgo(bi)
		}
		return
	}
	// The file is read through the process, so that a replaced or deleted
	// executable, or one of another mount namespace, is the right one.
	bi, err := buildinfo.ReadFile(dir + "/exe")
	switch {
	case err == nil:
		s.process.Go, s.process.Build, s.process.Cgo = true, bi.GoVersion, usesCgo(bi)
		s.readEnviron(dir)
		s.cannot(blindRuntime, errors.New("another process: its heap classes, stacks and collections are not visible from the kernel's side; a program sees its own with memguard.Explain"))
	case errors.Is(err, fs.ErrPermission):
		s.cannot("executable", fmt.Errorf("%w (reading another user's process needs the same user, or CAP_SYS_PTRACE)", err))
	case gone(err):
		s.cannot("executable", errors.New("the process has none: a kernel thread, or it is ending"))
	default:
		s.cannot("Go", errors.New("not a Go program: only the kernel's view applies"))
	}
}

// usesCgo reports whether C code can be in the program: it was built with cgo
// enabled, which is the default where a C compiler was found.
func usesCgo(bi *debug.BuildInfo) bool {
	for _, kv := range bi.Settings {
		if kv.Key == "CGO_ENABLED" {
			return kv.Value == "1"
		}
	}
	return false
}

// readEnviron reads GOGC and GOMEMLIMIT of the environment that the process was
// started with, and nothing else of it: environments hold secrets.
func (s *Source) readEnviron(dir string) {
	b, err := readSome(dir+"/environ", 1<<20)
	if err != nil {
		s.cannot("environment", err)
		return
	}
	s.environ = parseEnviron(b)
}

// parseEnviron reads the runtime's settings as the runtime does (readGOGC in
// mgcpacer.go, readGOMEMLIMIT in mgclimit.go).
func parseEnviron(b []byte) Runtime {
	r := Runtime{Origin: FromEnviron, GCPercent: Known[int64](100), MemoryLimit: Known[uint64](Unlimited)}
	seen := map[string]bool{} // getenv takes the first
	for kv := range bytes.SplitSeq(b, []byte{0}) {
		k, v, ok := strings.Cut(string(kv), "=")
		if !ok || seen[k] {
			continue
		}
		switch k {
		case "GOGC":
			seen[k] = true
			if v == "off" {
				r.GCPercent = Known[int64](-1)
			} else if n, err := strconv.ParseInt(v, 10, 32); err == nil {
				r.GCPercent = Known(max(n, -1)) // a malformed one is 100
			}
		case "GOMEMLIMIT":
			seen[k] = true
			if v == "" || v == "off" {
				continue
			}
			r.MemoryLimit = Bytes{} // the runtime refuses to start with a malformed one
			if n, err := ParseBytes(v); err == nil {
				r.MemoryLimit = Known(memoryLimit(n))
			}
		}
	}
	return r
}

// startTime reads field 22 of proc_pid_stat(5). The command name before it may
// hold anything, so the fields are counted from the last parenthesis.
func startTime(dir string) (uint64, error) {
	b, err := readSome(dir+"/stat", 1<<12)
	if err != nil {
		return 0, err
	}
	i := bytes.LastIndexByte(b, ')')
	fields := strings.Fields(string(b[i+1:]))
	if i < 0 || len(fields) < 20 {
		return 0, fmt.Errorf("%s/stat: no field 22 in %q", dir, b)
	}
	n, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s/stat: start time: %w", dir, err)
	}
	return n, nil
}

// readSwap reads how much is swapped out: once a second, for the file has everything of
// the process in it, and as often as page cache is looked at while there is any.
func (s *Source) readSwap(dst *Sample) {
	if _, ok := dst.Process.RSS.Get(); !ok || s.runtime == nil {
		return // that is said; and of another process nothing is decided by it
	}
	every := cgroupEvery
	if s.swap.v > 0 {
		every = cgroupCache
	}
	if since := dst.Time.Sub(s.swapAt); since >= every || since < 0 {
		s.swapAt = dst.Time
		b, err := readSome(proc+"/self/status", 1<<14)
		s.swap, s.noSwap = statusBytes(b, "VmSwap"), ""
		switch {
		case err != nil:
			s.noSwap = err.Error()
		case s.swap == Bytes{}:
			s.noSwap = "no VmSwap in its status"
		}
	}
	dst.Process.Swap = s.swap
	if s.noSwap != "" {
		dst.Blind = append(dst.Blind, Blind{"swap", s.noSwap})
	}
}

// readSome reads a file of /proc, at most limit bytes of it.
func readSome(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}
