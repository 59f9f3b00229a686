// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// A box is a file of a header page and two rings of records, all little-endian:
//
//	0     magic
//	16    checksum of the header from 20 up to what ends it
//	20    size of the header, size of a record, slots of Record, slots of Note,
//	      layout, pid: 4 bytes each
//	44    start, nanoseconds since 1970: 8 bytes
//	52    service, build, boot id: each a length of 2 bytes and the text
//	4080  end, nanoseconds since 1970: 8 bytes; 0 while it is open
//	4088  checksum of the end
//	4096  the slots of Record, then those of Note
//
// and a record:
//
//	0     checksum of the rest
//	4     kind
//	5     length of the payload
//	8     sequence, 1 is the first of both rings
//	16    time, nanoseconds since 1970
//	24    payload
//
// A slot of zeros was never written. Whatever else has a wrong checksum is torn:
// the process was killed while it wrote it, or the file was damaged.
const (
	boxMagic   = "memguard box 1\r\n"
	headerSize = 4096
	recordSize = 256
	recordHead = 24
	staticSize = headerSize - 16 // what does not change

	// PayloadSize is the most bytes that a record of a [Box] can hold.
	PayloadSize = recordSize - recordHead

	defaultBoxBytes = 1 << 20
	mostBoxBytes    = 64 << 20
	noteShare       = 8 // one slot in so many is for notes
)

// The names of boxes: blackbox-TIME-SERVICE.box, and .old when the next start has
// taken notice of it.
const (
	boxPrefix = "blackbox-"
	boxSuffix = ".box"
	oldSuffix = ".old"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli) // the one that CPUs compute

// BoxConfig says where a black box is made and how large.
type BoxConfig struct {
	Dir     string // made with mode 0700 if it is not there
	Service string // names the box; "" is the name of the executable
	Build   string // which build writes it; "" is what debug.ReadBuildInfo says
	Layout  uint32 // the version of what the caller puts into its records
	Bytes   int64  // size of the file, at most 64 MiB; 0 is 1 MiB
	Keep    int    // earlier boxes of the service that are kept; 0 is 4
}

// Header says whose box it is.
type Header struct {
	Service string    `json:"service"`
	Build   string    `json:"build"`
	Boot    string    `json:"boot_id"` // of the machine: /proc/sys/kernel/random/boot_id; "" where there is none
	PID     int       `json:"pid"`     // in the process's own PID namespace
	Layout  uint32    `json:"layout"`
	Start   time.Time `json:"start"`           // when the box was opened
	End     time.Time `json:"closed,omitzero"` // when it was closed; zero if it never was
}

// BoxRecord is one record of a box.
type BoxRecord struct {
	Seq     uint64 // 1 is the first that was written
	Time    time.Time
	Kind    byte
	Payload []byte
}

var (
	// ErrNoBox says that a file is not a black box, or that its header is damaged.
	ErrNoBox = errors.New("not a black box")

	// ErrLost says that what is written to a box can no longer be found in its
	// directory: the file was removed or made shorter.
	ErrLost = errors.New("the black box is lost")

	errPayload = errors.New("evidence: black box: the payload is longer than a record")
	errClosed  = errors.New("evidence: black box: closed")
)

// geometry is where the slots are.
type geometry struct{ records, notes int }

// slots divides a file of so many bytes.
func slots(size int64) geometry {
	n := int(size-headerSize) / recordSize
	return geometry{n - n/noteShare, n / noteShare}
}

func (g geometry) size() int64 { return headerSize + int64(g.records+g.notes)*recordSize }

// appendText appends a text of at most 255 bytes.
func appendText(b []byte, s string) []byte {
	s = s[:min(len(s), 255)]
	b = binary.LittleEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// encode writes the header's page.
func (h *Header) encode(g geometry) []byte {
	b := append(make([]byte, 0, headerSize), boxMagic...)
	for _, n := range []uint32{0, headerSize, recordSize, uint32(g.records), uint32(g.notes), h.Layout, uint32(h.PID)} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(h.Start.UnixNano()))
	for _, s := range []string{h.Service, h.Build, h.Boot} {
		b = appendText(b, s)
	}
	b = b[:headerSize]
	binary.LittleEndian.PutUint32(b[16:], crc32.Checksum(b[20:staticSize], castagnoli))
	return b
}

// encodeEnd writes the time of closing into the header's page.
func encodeEnd(b []byte, at time.Time) {
	binary.LittleEndian.PutUint64(b, uint64(at.UnixNano()))
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[:8], castagnoli))
}

// encodeRecord fills b, and zeros what the payload leaves.
func encodeRecord(b *[recordSize]byte, seq uint64, at time.Time, kind byte, payload []byte) {
	b[4], b[5], b[6], b[7] = kind, byte(len(payload)), 0, 0
	binary.LittleEndian.PutUint64(b[8:], seq)
	binary.LittleEndian.PutUint64(b[16:], uint64(at.UnixNano()))
	clear(b[recordHead+copy(b[recordHead:], payload):])
	binary.LittleEndian.PutUint32(b[:], crc32.Checksum(b[4:], castagnoli))
}

// serviceName makes a part of a file name of a name.
func serviceName(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '_'
	}, cmp.Or(s, filepath.Base(os.Args[0])))
	return s[:min(len(s), 64)]
}

// boxOf returns the service whose box a file name is.
func boxOf(name string) (service string, ok bool) {
	rest, ok := strings.CutPrefix(name, boxPrefix)
	if !ok || len(rest) <= len(stamp) || rest[len(stamp)] != '-' {
		return "", false
	}
	if _, err := time.Parse(stamp, rest[:len(stamp)]); err != nil {
		return "", false
	}
	rest = rest[len(stamp)+1:]
	suffix := filepath.Ext(rest)
	return strings.TrimSuffix(rest, suffix), suffix == boxSuffix || suffix == oldSuffix
}

// Boxes lists the black boxes in a directory, of all services, the oldest first.
func Boxes(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	var boxes []string
	for _, e := range entries {
		if _, ok := boxOf(e.Name()); ok && e.Type().IsRegular() {
			boxes = append(boxes, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(boxes) // by time
	return boxes, nil
}

// build says what the executable was built from.
func build() string {
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	b := []string{cmp.Or(bi.Path, bi.Main.Path), bi.Main.Version, bi.GoVersion}
	for _, kv := range bi.Settings {
		if kv.Key == "vcs.revision" {
			b = append(b, kv.Value)
		}
	}
	return strings.Join(strings.Fields(strings.Join(b, " ")), " ")
}
