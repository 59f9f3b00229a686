// SPDX-License-Identifier: Apache-2.0

package target

import (
	"bytes"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	rest := " S 1 2 2 0 -1 4194304 1 0 0 0 7 8 0 0 20 0 5 0 123456789 1000 20 18446744073709551615"
	for _, name := range []string{"(x)", "(a) Z 9)", "() ((\n))", "(" + strings.Repeat(") R 1", 20) + ")"} {
		s, err := parseStat([]byte("17 " + name + rest))
		require.NoError(t, err, name)
		assert.Equal(t, stat{'S', 4194304, 123456789}, s, name)
	}
	for _, bad := range []string{"", "17", "17 (x)", "17 (x) S", "17 (x) S 1 2 2 0 -1 x ", "17 (x) S 1 2 2 0 -1 4194304 1 0 0 0 7 8 0 0 20 0 5 0 -1 3"} {
		_, err := parseStat([]byte(bad))
		assert.Error(t, err, bad)
	}
	s, err := readStat(os.Getpid())
	require.NoError(t, err)
	assert.False(t, s.kernel())
	if s, err := readStat(2); err == nil {
		assert.True(t, s.kernel(), "pid 2 is kthreadd")
	}
}

func FuzzStat(f *testing.F) {
	f.Add([]byte("17 (x) S 1 2 2 0 -1 4194304 1 0 0 0 7 8 0 0 20 0 5 0 123456789 1000"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseStat(b)
		if err != nil && s != (stat{}) {
			t.Errorf("%+v beside an error", s)
		}
		if err == nil && s.state == 0 {
			t.Error("no state and no error")
		}
	})
}

func FuzzSocket(f *testing.F) {
	f.Add([]byte("   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 24231 1 0000000000000000 100 0 0 10 0"))
	f.Add([]byte("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"))
	f.Fuzz(func(t *testing.T, b []byte) {
		port, inode, listens, ok := parseSocket(b)
		if port < 0 || port > 65535 {
			t.Errorf("port %d", port)
		}
		if !ok && (port != 0 || inode != 0 || listens) {
			t.Error("a result beside not ok")
		}
	})
}

// Files that make debug/elf and debug/buildinfo read far, or wrong.
func FuzzBinary(f *testing.F) {
	self, err := os.Executable()
	if err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:4096])
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readBinary(bytes.NewReader(b))
		if err != nil && got.goVersion != "" {
			t.Errorf("Go %q beside %v", got.goVersion, err)
		}
		if len(got.buildID) > 512 || len(got.goVersion) > 256 {
			t.Errorf("%d and %d bytes", len(got.buildID), len(got.goVersion))
		}
	})
}

// sparse is a file of a terabyte that has one header.
type sparse struct{ head []byte }

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(s.head)) {
		copy(p, s.head[off:])
	}
	return len(p), nil
}

func TestHostileBinary(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	f, err := os.Open(self)
	require.NoError(t, err)
	defer f.Close()
	head := make([]byte, 4096)
	_, err = f.ReadAt(head, 0)
	require.NoError(t, err)

	// Program headers that say the data is a terabyte, no sections.
	hostile := bytes.Clone(head)
	for i := range 8 {
		hostile[40+i] = 0 // e_shoff
	}
	hostile[60], hostile[61], hostile[62], hostile[63] = 0, 0, 0, 0 // e_shnum, e_shstrndx
	for i := 64; i+56 <= 64+56*int(hostile[56]); i += 56 {
		copy(hostile[i+32:], []byte{0, 0, 0, 0, 0, 1, 0, 0}) // p_filesz
		copy(hostile[i+40:], []byte{0, 0, 0, 0, 0, 1, 0, 0}) // p_memsz
	}
	_, err = readBinary(sparse{hostile})
	assert.ErrorIs(t, err, errTooFar)
	_, err = readBinary(strings.NewReader("#!/bin/sh\n"))
	assert.EqualError(t, err, "not an ELF file")
	_, err = readBinary(strings.NewReader("x"))
	assert.Error(t, err)
}

// Reads that hang are given up, and do not add up.
func TestProcessHangs(t *testing.T) { // uses up what all scans share
	release := make(chan struct{})
	var waiting sync.WaitGroup
	hang := func() (int, error) { <-release; return 1, nil }
	for range cap(hangs) {
		waiting.Go(func() {
			_, err := within(hang)
			assert.ErrorIs(t, err, errSlow)
		})
	}
	waiting.Wait()
	_, err := within(func() (int, error) { return 1, nil })
	assert.ErrorIs(t, err, errSlow, "no more threads for it")
	close(release)
	require.Eventually(t, func() bool { n, err := within(hang); return n == 1 && err == nil }, 10*time.Second, time.Millisecond)
}
