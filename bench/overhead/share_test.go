// SPDX-License-Identifier: Apache-2.0

package overhead

import (
	"bytes"
	"testing"

	"github.com/google/pprof/profile"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var stacks = map[string]struct {
	stack []string // innermost first
	want  string
}{
	"a tick": {
		[]string{"syscall.Pread", module + "scavenge/cgroup.(*file).pread", module + "memguard.(*Guard).tick"},
		module + "scavenge/cgroup.(*file).pread",
	},
	"a handler below the limiter": {
		[]string{"encoding/json.Marshal", module + "bench/overhead.answer", "net/http.(*ServeMux).ServeHTTP", module + "memguard/shed.(*Limiter).Handler.func1"}, "",
	},
	"routing below the limiter": {
		[]string{"net/http.(*ServeMux).findHandler", "net/http.(*ServeMux).ServeHTTP", module + "memguard/shed.(*Limiter).Handler.func1"}, "",
	},
	"routing for the limiter": {
		[]string{"net/http.(*ServeMux).findHandler", "net/http.(*ServeMux).Handler", module + "memguard/shed.pattern", module + "memguard/shed.(*Limiter).Handler.func1"},
		module + "memguard/shed.pattern",
	},
	"a read below the limiter": {
		[]string{"syscall.Read", "net.(*conn).Read", module + "memguard/shed.(*conn).Read", "net/http.(*conn).serve"}, "",
	},
	"the limiter's own part of a read": {
		[]string{module + "memguard/shed.(*conn).Read", "net/http.(*conn).serve"},
		module + "memguard/shed.(*conn).Read",
	},
	"a look for the limiter": {
		[]string{"syscall.Pread", module + "scavenge/cgroup.(*file).pread", module + "memguard.(*Guard).lookForWork", module + "memguard/shed.(*Limiter).lookLocked"},
		module + "scavenge/cgroup.(*file).pread",
	},
	"a tick that tells the limiter": {
		[]string{module + "memguard/shed.(*core).update", module + "memguard/shed.(*Limiter).Update", module + "memguard.(*Guard).tick", module + "memguard.(*Guard).run"},
		module + "memguard/shed.(*core).update",
	},
	"the cache":   {[]string{"runtime.mallocgc", module + "bench/overhead.newDocument"}, ""},
	"the runtime": {[]string{"runtime.gcDrain", "runtime.gcBgMarkWorker"}, ""},
	"nothing":     {nil, ""},
}

func TestGuardian(t *testing.T) {
	t.Parallel()
	for name, tt := range stacks {
		assert.Equal(t, tt.want, guardian(tt.stack), name)
	}
}

func TestShareOf(t *testing.T) {
	t.Parallel()
	p := &profile.Profile{SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}}}
	for _, tt := range stacks {
		s := &profile.Sample{Value: []int64{10}}
		for _, name := range tt.stack {
			f := &profile.Function{ID: uint64(len(p.Function) + 1), Name: name}
			l := &profile.Location{ID: f.ID, Line: []profile.Line{{Function: f}}}
			p.Function, p.Location = append(p.Function, f), append(p.Location, l)
			s.Location = append(s.Location, l)
		}
		p.Sample = append(p.Sample, s)
	}
	var text bytes.Buffer
	require.NoError(t, p.Write(&text))
	s, err := shareOf(text.Bytes())
	require.NoError(t, err)
	assert.EqualValues(t, 110, s.All)
	assert.EqualValues(t, 20, s.Guard)
	assert.EqualValues(t, 30, s.Limiter)
	assert.InDelta(t, 2000./110, s.percent(s.Guard), 1e-9)
	assert.Equal(t, []spent{{"scavenge/cgroup.(*file).pread", 20}, {"memguard/shed.(*conn).Read", 10}, {"memguard/shed.(*core).update", 10}, {"memguard/shed.pattern", 10}}, s.Where)

	_, err = shareOf([]byte("no profile"))
	assert.Error(t, err)
}
