// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// boxBytes is a box with 8 slots for records and 2 for notes, and one record for
// each sequence in its slot; 0 leaves it empty.
func boxBytes(seqs ...uint64) []byte {
	h := Header{Service: "orders", Build: "v1", Boot: "b", PID: 42, Layout: 7, Start: time.Unix(1700000000, 0)}
	b := append(h.encode(geometry{8, 2}), make([]byte, 10*recordSize)...)
	for slot, seq := range seqs {
		if seq != 0 {
			put(b, slot, seq)
		}
	}
	return b
}

func put(b []byte, slot int, seq uint64) {
	encodeRecord((*[recordSize]byte)(b[headerSize+slot*recordSize:]), seq, time.Unix(0, int64(seq)), byte(seq), []byte{byte(seq)})
}

func TestParseBox(t *testing.T) {
	t.Parallel()
	flip := func(b []byte, at int) []byte {
		b[at] ^= 1
		return b
	}
	slot := func(n int) int { return headerSize + n*recordSize }
	for _, test := range []struct {
		name    string
		box     []byte
		seqs    []uint64
		torn    int
		missing uint64
	}{
		{"empty", boxBytes(), nil, 0, 0},
		{"begun", boxBytes(1, 2, 4, 0, 0, 0, 0, 0, 3), []uint64{1, 2, 3, 4}, 0, 0},
		{"once around", boxBytes(9, 10, 3, 4, 5, 6, 7, 8), []uint64{3, 4, 5, 6, 7, 8, 9, 10}, 0, 0},
		{"an old note", boxBytes(19, 20, 13, 14, 15, 16, 17, 18, 2), []uint64{2, 13, 14, 15, 16, 17, 18, 19, 20}, 0, 0},
		{"notes went around", boxBytes(1, 0, 0, 0, 0, 0, 0, 0, 8, 9), []uint64{1, 8, 9}, 0, 0},
		{"torn newest", flip(boxBytes(1, 2, 3), slot(2)+100), []uint64{1, 2}, 1, 0},
		{"torn over the oldest", flip(boxBytes(9, 10, 3, 4, 5, 6, 7, 8), slot(1)), []uint64{3, 4, 5, 6, 7, 8, 9}, 1, 0},
		{"torn in the midst", flip(boxBytes(1, 2, 3, 4), slot(1)+9), []uint64{1, 3, 4}, 1, 1},
		{"a lost page", boxBytes(1, 2, 0, 0, 5), []uint64{1, 2, 5}, 0, 2},
		{"twice the same", boxBytes(1, 2, 2), []uint64{1, 2}, 1, 0},
		{"cut", boxBytes(1, 2, 3)[:slot(2)+5], []uint64{1, 2}, 0, 0},
		{"cut to the header", boxBytes(1, 2, 3)[:headerSize], nil, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, err := parseBox(test.box)
			require.NoError(t, err)
			assert.Equal(t, "orders", r.Service)
			assert.Equal(t, 42, r.PID)
			var seqs []uint64
			for _, rec := range r.Records {
				seqs = append(seqs, rec.Seq)
				assert.Equal(t, []byte{byte(rec.Seq)}, rec.Payload)
				assert.Equal(t, byte(rec.Seq), rec.Kind)
			}
			assert.Equal(t, test.seqs, seqs)
			assert.Equal(t, test.torn, r.Torn)
			assert.Equal(t, test.missing, r.Missing)
		})
	}
}

func TestNoBox(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(b []byte) []byte{
		"empty":            func([]byte) []byte { return nil },
		"half a header":    func(b []byte) []byte { return b[:1000] },
		"zeros":            func(b []byte) []byte { return make([]byte, len(b)) },
		"a changed header": func(b []byte) []byte { b[60] ^= 1; return b },
	} {
		_, err := parseBox(change(boxBytes(1, 2)))
		require.ErrorIs(t, err, ErrNoBox, name)
	}
	// A mark of the end that is itself torn is none.
	b := boxBytes(1)
	encodeEnd(b[staticSize:], time.Unix(1700000001, 0))
	r, err := parseBox(b)
	require.NoError(t, err)
	assert.EqualValues(t, 1700000001, r.End.Unix())
	b[staticSize] ^= 1
	r, err = parseBox(b)
	require.NoError(t, err)
	assert.Zero(t, r.End)
}

// A box can be read wherever it was copied to.
func TestReadBoxCopy(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.WriteFile(path, boxBytes(1, 2), 0o600))
	r, err := ReadBox(path)
	require.NoError(t, err)
	assert.Equal(t, path, r.Path)
	assert.Len(t, r.Records, 2)
	assert.Contains(t, []State{Died, Unknown}, r.State)
}

// mendBox gives every record and the header the checksum that they should have.
func mendBox(b []byte) {
	copy(b, boxMagic)
	binary.LittleEndian.PutUint32(b[20:], headerSize)
	binary.LittleEndian.PutUint32(b[24:], recordSize)
	binary.LittleEndian.PutUint32(b[16:], crc32.Checksum(b[20:staticSize], castagnoli))
	binary.LittleEndian.PutUint32(b[staticSize+8:], crc32.Checksum(b[staticSize:staticSize+8], castagnoli))
	for at := headerSize; at+recordSize <= len(b); at += recordSize {
		binary.LittleEndian.PutUint32(b[at:], crc32.Checksum(b[at+4:at+recordSize], castagnoli))
	}
}

// Whatever a box holds: no panic, no more records than slots, in order, each once.
func FuzzParseBox(f *testing.F) {
	f.Add(boxBytes(1, 2, 4, 0, 0, 0, 0, 0, 3), false)
	f.Add(boxBytes(9, 10, 3, 4, 5, 6, 7, 8, 1, 2), false)
	f.Add(boxBytes(1<<64-1, 1), false)
	huge := Header{}
	f.Add(huge.encode(geometry{1 << 30, 1 << 30}), true)
	f.Fuzz(func(t *testing.T, b []byte, mend bool) {
		if mend && len(b) > headerSize { // so that what follows the checksums is reached
			mendBox(b)
		}
		r, err := parseBox(bytes.Clone(b))
		if err != nil {
			require.ErrorIs(t, err, ErrNoBox)
			require.Nil(t, r)
			return
		}
		slots := (len(b) - headerSize) / recordSize
		require.LessOrEqual(t, len(r.Records)+r.Torn, slots)
		for i, rec := range r.Records {
			require.NotZero(t, rec.Seq)
			require.LessOrEqual(t, len(rec.Payload), PayloadSize)
			if i > 0 {
				require.Greater(t, rec.Seq, r.Records[i-1].Seq)
			}
		}
		if n := len(r.Records); n > 0 {
			require.Less(t, r.Missing, r.Records[n-1].Seq)
		}
		_, err = r.Start.MarshalJSON()
		require.NoError(t, err)
		_, err = r.End.MarshalJSON()
		require.NoError(t, err)
	})
}
