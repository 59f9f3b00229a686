// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"sort"
	"time"
)

// State says how the process of a box ended.
type State string

// The states of a process.
const (
	Closed  State = "closed"  // it closed the box, as it ends when it means to
	Running State = "running" // it has the box open
	Died    State = "died"    // it is gone and did not close the box
	Unknown State = "unknown" // not closed; whether it runs cannot be seen here
)

// Recording is what a box holds.
type Recording struct {
	Path string
	Header
	State State

	// Records are in the order in which they were written. Notes reach further
	// back than the other records, and so the first ones have gaps between them
	// that are no loss.
	Records []BoxRecord
	// Torn are the records with a wrong checksum. A process that is killed leaves
	// one at most; one that runs while its box is read may show one too.
	Torn int
	// Missing are the records before the last one that should be there and are
	// not. One that runs while its box is read may show some.
	Missing uint64
}

// ReadBox reads a black box: of a process that is gone, or of one at work. State
// is seen from the lock that a running process holds on the file, and so is of
// no use for a copy that was made meanwhile. What is not a box, or has a damaged
// header, gives an error that wraps [ErrNoBox]; everything else is read as far
// as it goes.
func ReadBox(path string) (*Recording, error) {
	r, err := readBox(path)
	if err != nil {
		return nil, fmt.Errorf("evidence: black box: %w", err)
	}
	return r, nil
}

func readBox(path string) (*Recording, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// The state first: a process that ends after this has written all that is
	// read below.
	live, lockErr := locked(f)
	b, err := io.ReadAll(io.LimitReader(f, mostBoxBytes))
	if err != nil {
		return nil, err
	}
	r, err := parseBox(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	r.Path = path
	switch {
	case !r.End.IsZero():
		r.State = Closed
	case lockErr != nil:
		r.State = Unknown
	case live:
		r.State = Running
	default:
		r.State = Died
	}
	return r, nil
}

// decodeHeader reads the header's page.
func decodeHeader(b []byte) (h Header, g geometry, err error) {
	switch {
	case !bytes.HasPrefix(b, []byte(boxMagic)):
		return h, g, ErrNoBox
	case len(b) < headerSize:
		return h, g, fmt.Errorf("%w: it ends within its header", ErrNoBox)
	case binary.LittleEndian.Uint32(b[16:]) != crc32.Checksum(b[20:staticSize], castagnoli):
		return h, g, fmt.Errorf("%w: wrong checksum of its header", ErrNoBox)
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	if u32(20) != headerSize || u32(24) != recordSize {
		return h, g, fmt.Errorf("%w of this version: records of %d bytes after %d", ErrNoBox, u32(24), u32(20))
	}
	if n := uint64(u32(28)) + uint64(u32(32)); n > (mostBoxBytes-headerSize)/recordSize {
		return h, g, fmt.Errorf("%w: it claims %d records", ErrNoBox, n)
	}
	g = geometry{int(u32(28)), int(u32(32))}
	h.Layout, h.PID = u32(36), int(u32(40))
	h.Start = time.Unix(0, int64(binary.LittleEndian.Uint64(b[44:])))
	at := 52
	for _, s := range []*string{&h.Service, &h.Build, &h.Boot} {
		n := int(binary.LittleEndian.Uint16(b[at:]))
		if n > 255 {
			return h, g, fmt.Errorf("%w: a text of %d bytes in its header", ErrNoBox, n)
		}
		*s = string(bytes.ToValidUTF8(b[at+2:at+2+n], []byte("?")))
		at += 2 + n
	}
	end := b[staticSize : staticSize+12]
	if ns := binary.LittleEndian.Uint64(end); ns != 0 && binary.LittleEndian.Uint32(end[8:]) == crc32.Checksum(end[:8], castagnoli) {
		h.End = time.Unix(0, int64(ns))
	}
	return h, g, nil
}

// parseBox reads the bytes of a box. The payloads are parts of b.
func parseBox(b []byte) (*Recording, error) {
	h, g, err := decodeHeader(b)
	if err != nil {
		return nil, err
	}
	r := &Recording{Header: h}
	complete := uint64(1) // from this sequence on, nothing was overwritten
	for _, ring := range [][2]int{{0, g.records}, {g.records, g.notes}} {
		oldest, full := uint64(math.MaxUint64), true
		for slot := ring[0]; slot < ring[0]+ring[1]; slot++ {
			at := headerSize + slot*recordSize
			if at+recordSize > len(b) { // the file was cut
				break
			}
			switch rec, err := decodeRecord(b[at : at+recordSize]); {
			case err == nil:
				r.Records = append(r.Records, rec)
				oldest = min(oldest, rec.Seq)
			case errors.Is(err, errEmpty):
				full = false
			default:
				r.Torn++
			}
		}
		if full && oldest != math.MaxUint64 {
			complete = max(complete, oldest)
		}
	}
	sort.SliceStable(r.Records, func(i, j int) bool { return r.Records[i].Seq < r.Records[j].Seq })
	whole := len(r.Records)
	r.Records = slices.CompactFunc(r.Records, func(a, b BoxRecord) bool { return a.Seq == b.Seq })
	r.Torn += whole - len(r.Records) // two cannot have the same sequence
	if len(r.Records) > 0 {
		first, _ := slices.BinarySearchFunc(r.Records, complete, func(rec BoxRecord, seq uint64) int { return cmp.Compare(rec.Seq, seq) })
		if have := uint64(len(r.Records) - first); have > 0 {
			r.Missing = r.Records[len(r.Records)-1].Seq - complete + 1 - have
		}
	}
	return r, nil
}

var (
	errEmpty = errors.New("empty slot")
	errTorn  = errors.New("torn record")
)

func decodeRecord(b []byte) (BoxRecord, error) {
	seq := binary.LittleEndian.Uint64(b[8:])
	n := int(b[5])
	switch {
	case bytes.Count(b, []byte{0}) == len(b):
		return BoxRecord{}, errEmpty
	case binary.LittleEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli), n > PayloadSize, seq == 0:
		return BoxRecord{}, errTorn
	}
	at := time.Unix(0, int64(binary.LittleEndian.Uint64(b[16:])))
	return BoxRecord{Seq: seq, Time: at, Kind: b[4], Payload: b[recordHead : recordHead+n : recordHead+n]}, nil
}
