// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/pacer"
	"github.com/memguard/memguard-go/scavenge/cgroup"
)

// The smaller limit counts; where the cgroup has none, the process alone is held
// against the one that it states.
func TestStatedLimit(t *testing.T) {
	t.Parallel()
	group := new(cgroup.Group)
	none, unknown := Known[uint64](Unlimited), Bytes{}
	for _, c := range []struct {
		name          string
		group         *cgroup.Group
		limit, stated uint64
		is            Bytes // instead of limit
		want, usage   Bytes
		from          string
	}{
		{"nothing is stated", group, 512, 0, Bytes{}, Known[uint64](512), Known[uint64](300), "/pod"},
		{"the cgroup's is smaller", group, 512, 600, Bytes{}, Known[uint64](512), Known[uint64](300), "/pod"},
		{"the cgroup's is larger", group, 512, 400, Bytes{}, Known[uint64](400), Known[uint64](300), limitStated},
		{"the cgroup has none", group, 0, 400, none, Known[uint64](400), Known[uint64](100), limitStated},
		{"the cgroup's is not known", group, 0, 400, unknown, unknown, Known[uint64](300), "/pod"},
		{"there is no cgroup", nil, 0, 400, unknown, Known[uint64](400), Known[uint64](100), limitStated},
	} {
		s := &Source{group: c.group, limit: c.stated}
		var dst Sample
		dst.Process = Process{RSS: Known[uint64](100), Shared: Known[uint64](10)}
		dst.Cgroup = Cgroup{Path: "/pod", LimitFrom: "/pod", Limit: c.is, Usage: Known[uint64](340), ActiveFile: Known[uint64](30), InactiveFile: Known[uint64](10), OOMKills: Known[uint64](3)}
		if c.limit > 0 {
			dst.Cgroup.Limit = Known(c.limit)
		}
		s.state(&dst)
		assert.Equal(t, c.want, dst.Cgroup.Limit, c.name)
		assert.Equal(t, c.usage, dst.Cgroup.undroppable(), c.name)
		assert.Equal(t, c.from, dst.Cgroup.LimitFrom, c.name)
		assert.Equal(t, Known[uint64](3), dst.Cgroup.OOMKills, c.name)
	}
	s := &Source{limit: 400}
	var dst Sample
	s.state(&dst)
	assert.Equal(t, Bytes{}, dst.Cgroup.undroppable(), "what is resident is not known: not 0")
}

// A guard with a limit of the service's own paces the collector by it, wherever it
// runs, and tells the limiter how much of it is in use.
func TestProcessGuardHoldsAStatedLimit(t *testing.T) {
	user := pacer.NewApplier().Current()
	const limit = 3 << 30
	runtime.GC()
	g := Start(Config{Limit: limit})
	ticked(t, g)
	st := g.Status()
	if n, ok := bounded(st.Sample.Cgroup.Limit); ok && n < limit {
		t.Skipf("a smaller limit is enforced here: %d", n)
	}
	assert.Equal(t, Known[uint64](limit), st.Sample.Cgroup.Limit)
	assert.Less(t, st.Wanted.MemoryLimit, int64(limit))
	assert.Greater(t, st.Wanted.MemoryLimit, int64(limit/2))
	now, ok := g.source.usageNow()
	require.True(t, ok)
	then, ok := st.Undroppable.Get()
	require.True(t, ok)
	assert.InDelta(t, then, now, 64<<20)
	require.NoError(t, g.Close())
	assert.Equal(t, user, pacer.NewApplier().Current())
	_, ok = g.source.usageNow()
	assert.False(t, ok, "the guard has closed it")
}

// A line of statm that is cut short, or none, is not a figure.
func TestResidentNow(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint64{"100 70 20 1 0 50 0\n": 70, "100 7": 0, "": 0, "a b c": 0} {
		name := t.TempDir() + "/statm"
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
		f, err := os.Open(name)
		require.NoError(t, err)
		n, ok := (&glance{statm: f}).residentNow()
		f.Close()
		assert.Equal(t, want*uint64(pageSize), n, text)
		assert.Equal(t, want > 0, ok, text)
	}
}
