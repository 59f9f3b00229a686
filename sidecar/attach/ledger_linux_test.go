// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/scavenge/smaps"
)

// TestLedger accounts for a target with what was read of it: the ledger's Go rows
// are known, and they and the others add up to what the kernel counts.
func TestLedger(t *testing.T) {
	p := start(t, compile(t, build{release: current, flags: "-ldflags=-s,-w"}), "-heap=64", "-goroutines=1000")
	source, err := memguard.Open(p.pid())
	require.NoError(t, err)
	defer source.Close()
	s, err := open(t, p.pid()).Snapshot(t.Context(), 0)
	require.NoError(t, err)
	var sample memguard.Sample
	require.NoError(t, source.Read(&sample))
	sample.Runtime = s.Runtime()
	metadata, ok := s.Heap.Metadata.Get()
	require.True(t, ok)
	sample.Process.Maps, err = smaps.Read("/proc", p.pid(), smaps.Hints{Go: true, HeapRanges: s.Arenas, MetadataBytes: metadata})
	require.NoError(t, err)
	ledger := memguard.NewLedger(&sample)
	for _, name := range []string{memguard.RowLive, memguard.RowDead, memguard.RowUnused, memguard.RowFree, memguard.RowStacks, memguard.RowMetadata,
		memguard.RowUntouched, memguard.RowRefill, memguard.RowBinary} {
		_, ok := ledger.Row(name)
		assert.True(t, ok, name)
	}
	heap := sample.Process.Maps.ByKind(smaps.GoHeap)
	rss, ok := heap.Bytes(smaps.Rss)
	require.True(t, ok)
	assert.Greater(t, rss, uint64(1<<20)) // most objects of this target were never touched
	residual, ok := ledger.Residual.Get()
	require.True(t, ok)
	total, _ := ledger.RSS.Get()
	assert.InDelta(t, 0, residual, 0.02*float64(total)+1<<20)
}
