// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"errors"
	"os/exec"
	"testing"

	"github.com/memguard/memguard-go/scavenge/smaps"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An Eye fills the runtime's figures of another process; when it fails they are
// unknown again, and the sample says why.
func TestEye(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sleep", "60")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	src, err := Open(cmd.Process.Pid)
	require.NoError(t, err)
	defer src.Close()

	var closed error
	src.See(func(r *Runtime) ([]smaps.Range, error) {
		if closed != nil {
			r.Total = Known[uint64](1) // half an answer is none
			return nil, closed
		}
		*r = Runtime{Origin: "test", Total: Known[uint64](64 << 20), Released: Known[uint64](0), Metadata: Known[uint64](1 << 20)}
		return []smaps.Range{{Start: 1 << 30, End: 2 << 30}}, nil
	})
	var s Sample
	require.NoError(t, src.Read(&s))
	assert.True(t, s.Runtime.seen())
	assert.Equal(t, Origin("test"), s.Runtime.Origin)
	assert.Equal(t, []smaps.Range{{Start: 1 << 30, End: 2 << 30}}, src.hints().HeapRanges)
	assert.EqualValues(t, 1<<20, src.hints().MetadataBytes)

	closed = errors.New("the eye is closed")
	require.NoError(t, src.Read(&s))
	assert.False(t, s.Runtime.seen())
	assert.Contains(t, s.Blind, Blind{"runtime", "the eye is closed"})
	require.NoError(t, src.Survey(&s))
}
