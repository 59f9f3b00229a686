// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/memguard/memguard-go/bench/lab"
	"github.com/stretchr/testify/assert"
)

// Verdicts are of the figures: other figures, another verdict. Every judge is
// here with figures that contradict what it is expected to find.
func TestJudges(t *testing.T) {
	t.Parallel()
	occurs := 1
	gone := resident{RSS: 10 * mib}
	full := resident{RSS: 138 * mib}
	for name, tt := range map[string]struct {
		want Verdict
		got  func() (Verdict, string)
	}{
		"goal is twice the live heap": {False, judged(judgeGoal, goalFigures{Live: 64 * mib, Goal: 128 * mib, StartPercent: 100})},
		"goal counts stacks":          {True, judged(judgeGoal, goalFigures{Live: 64 * mib, Goal: 160 * mib, StartPercent: 100})},
		"overshoot nowhere":           {False, judged(judgeOvershoot, []overshoot{{Max: 1.01}, {Max: 1}})},
		"overshoot of small heaps":    {Partly, judged(judgeOvershoot, []overshoot{{Max: 4.5}, {Max: 1.2}})},
		"overshoot of all heaps":      {True, judged(judgeOvershoot, []overshoot{{Max: 4.5}, {Max: 4}})},
		"cycle before the allocation": {False, judged(judgeBig, bigFigures{Before: 8 * mib, Start: 9 * mib, TraceGoal: 9 * mib})},
		"trace shows the excess":      {Partly, judged(judgeBig, bigFigures{Before: 8 * mib, Start: 512 * mib, TraceGoal: 8 * mib})},
		"off collects":                {True, judged(judgeOff, offFigures{Cycles: 5}, offFigures{Cycles: 5}, offFigures{Cycles: 5})},
		"nothing collects":            {Unclear, judged(judgeOff, offFigures{}, offFigures{}, offFigures{})},
		"every 100 MB":                {True, judged(judgePercent, percentFigures{Every: map[string]uint64{"8": 99e6, "32": 101e6}})},
		"the table saves":             {True, judged(judgeLab, outcomes(1, 0, 0)...)},
		"the table does not":          {False, judged(judgeLab, outcomes(1, 1, 0)...)},
		"nobody is killed":            {Unclear, judged(judgeLab, outcomes(0, 0, 0)...)},
		"open lowers the goal":        {True, judged(judgeTable, []tableFigures{{Goal: 100}, {Goal: 50}, {Goal: 200}})},
		"open collects as much":       {False, judged(judgeRoom, []tableFigures{{Cycles: 5, GCCPU: 1}, {Cycles: 5, GCCPU: 1}})},
		"discarded is allocated":      {True, judged(judgeDiscard, discardFigures{Calls: 1000, Discarded: 1000, Kept: 1000})},
		"nothing is allocated":        {Unclear, judged(judgeDiscard, discardFigures{Calls: 1000})},

		"2 KiB stacks":            {True, judged(judgeStart, startFigures{Reused: 2048}, startFigures{Reused: 2048})},
		"always bigger stacks":    {False, judged(judgeStart, startFigures{Reused: 8192}, startFigures{Reused: 8192})},
		"stacks stay":             {True, judged(judgeShrink, shrinkFigures{Stacks: []uint64{100, 100}})},
		"stacks shrink by half":   {Partly, judged(judgeShrink, shrinkFigures{Stacks: []uint64{100, 50}})},
		"stacks shrink in calls":  {False, judged(judgePinned, pinnedFigures{WaitingBefore: 100, WaitingAfter: 10, InCallBefore: 100, InCallAfter: 10})},
		"no stack shrinks":        {Unclear, judged(judgePinned, pinnedFigures{WaitingBefore: 100, WaitingAfter: 100, InCallBefore: 100, InCallAfter: 100})},
		"stacks leak":             {True, judged(judgeExit, exitFigures{Before: 10, Deep: 110, Ended: 110})},
		"half of the stacks leak": {Partly, judged(judgeExit, exitFigures{Before: 10, Deep: 110, Ended: 60})},
		"profile has all":         {True, judged(judgeProfileSmall, profileFigures{Heap: 100, Stacks: 100, ShowsHeap: 100, ShowsStacks: 100})},
		"profile has nothing":     {False, judged(judgeProfileSmall, profileFigures{Heap: 100, Stacks: 100})},
		"alloc_space has stacks":  {True, judged(judgeProfileStacks, profileFigures{Stacks: 100, AllocsStacks: 100})},

		"mcaches keep":            {True, judged(judgeMcache, mcacheFigures{Before: 10, Idle: 100, Cycle: 100})},
		"mcaches never had":       {Unclear, judged(judgeMcache, mcacheFigures{Before: 10, Idle: 10, Cycle: 1})},
		"MSpanInuse counts spans": {True, judged(judgeMSpan, mspanFigures{InUse: 100, Sys: 1e6, Heap: 8192 * 100})},
		"collection compacts":     {False, judged(judgeFragments, fragmentFigures{Objects: 100, Cycle: 10, Freed: 10})},
		"FreeOSMemory compacts":   {False, judged(judgeFragments, fragmentFigures{Objects: 10, Cycle: 100, Freed: 10})},

		"finalizers in parallel":    {False, judged(judgeStall, finalizerFigures{Healthy: 100, Stalled: 100})},
		"no finalizer ever runs":    {Unclear, judged(judgeStall, finalizerFigures{})},
		"GC waits":                  {True, judged(judgeWait, finalizerFigures{})},
		"stops grow":                {Partly, judged(judgeWait, finalizerFigures{Returned: true, STWHealthy: 1e-4, STWStalled: 2e-2})},
		"two goroutines":            {True, judged(judgeFinalizerGoroutines, finalizerFigures{Goroutines: 2})},
		"another name of the frame": {Unclear, judged(judgeFinalizerGoroutines, finalizerFigures{})},

		"first quantile is the last pause": {True, judged(judgeQuantiles, quantileFigures{Quantiles: []float64{3, 3, 3, 4, 5}, Last: 3, Min: 1, Max: 5})},
		"quantiles of something else":      {Unclear, judged(judgeQuantiles, quantileFigures{Quantiles: []float64{2, 3, 3, 4, 5}, Last: 3, Min: 1, Max: 5})},
		"class moved":                      {False, judged(judgeIndex, bySizeFigures{Second: 24})},
		"BySize has it":                    {True, judged(judgeComplete, bySizeFigures{Allocated: 10, InBySize: 10, InBuckets: 10})},
		"nobody has it":                    {Unclear, judged(judgeComplete, bySizeFigures{Allocated: 10})},
		"dead count never":                 {True, judged(judgeFrees, freesFigures{Dead: 1000})},
		"dead count always":                {False, judged(judgeFrees, freesFigures{Dead: 1000, Before: 1000, After: 1000})},
		"dumps stop nothing":               {True, judged(judgeDump, dumpFigures{Ways: []dumpWay{{}, {}, {Stops: 2}}})},
		"dumps stop shortly":               {Partly, judged(judgeDump, dumpFigures{Ways: []dumpWay{{Stops: 1, Stopped: 1}, {Stops: 1, Stopped: 1}, {Stops: 2, Stopped: 1}}})},

		"FreeOSMemory does nothing": {True, judged(judgeFree, freeFigures{})},
		"FreeOSMemory only stops":   {Partly, judged(judgeFree, freeFigures{Stops: 2})},
		"needs madvise=1":           {True, judged(judgeMadvise, freeFigures{Garbage: 128 * mib, Before: full, After: full}, freeFigures{Garbage: 128 * mib, Before: full, After: gone})},
		"nothing is released":       {Unclear, judged(judgeMadvise, freeFigures{Garbage: 128 * mib, Before: full, After: full}, freeFigures{Garbage: 128 * mib, Before: full, After: full})},
		"lazy by default":           {True, judged(judgeLazy, freeFigures{Released: 100, After: resident{LazyFree: 100}}, freeFigures{Released: 100, After: resident{LazyFree: 100}})},
		"lazy never":                {False, judged(judgeLazy, freeFigures{Released: 100}, freeFigures{Released: 100})},
		"unmapped":                  {True, judged(judgeUnmapped, freeFigures{Garbage: 128 * mib, Before: resident{RSS: 138 * mib, Virtual: 300 * mib}, After: resident{RSS: 10 * mib, Virtual: 172 * mib}})},
		"released by itself":        {False, judged(judgeSpike, spikeFigures{First: 100, Still: 10, Last: 10})},
		"never released":            {Partly, judged(judgeSpike, spikeFigures{First: 100, Still: 100, Last: 100})},
		"the line is printed":       {True, judged(judgeLine, lineFigures{Lines: map[string]int{"gc": 1, "scav": 1}, Claimed: 1})},
		"the line is in the source": {True, judged(judgeLine, lineFigures{Lines: map[string]int{"gc": 1, "scav": 1}, InSource: &occurs})},
		"no line at all":            {Unclear, judged(judgeLine, lineFigures{})},
		"all names":                 {True, judged(judgeNames, nameFigures{Claimed: map[string]int{"a": 1, "b": 1}, Real: map[string]int{"c": 1}})},
		"one name":                  {Partly, judged(judgeNames, nameFigures{Claimed: map[string]int{"a": 1, "b": 0}, Real: map[string]int{"c": 1}})},
		"not the source":            {Unclear, judged(judgeNames, nameFigures{Claimed: map[string]int{"a": 0}, Real: map[string]int{"c": 0}})},

		"overcommit matters":  {True, judged(judgeAdvice, adviceFigures{Mapped: 100, Free: resident{LazyFree: 100}}, adviceFigures{Mapped: 100, Gone: resident{Huge: 100}})},
		"no MADV_FREE at all": {Unclear, judged(judgeAdvice, adviceFigures{Mapped: 100}, adviceFigures{Mapped: 100})},
		"no refill":           {False, judged(judgeRefill, refillFigures{Full: 100, Freed: 10, Refilled: 10, Released: 90, Still: 90})},
		"never released, THP": {Unclear, judged(judgeRefill, refillFigures{Full: 100, Freed: 100, Refilled: 100})},
		"free keeps it":       {True, judged(judgeChunk, chunkFigures{Mapped: 1, Freed: 1})},
		"never mapped":        {Unclear, judged(judgeChunk, chunkFigures{})},
		"free returns it":     {False, judged(judgeArenas, arenaFigures{Before: 10, Full: 110, Freed: 20, Go: 20, Trimmed: 20})},
		"FreeOSMemory trims":  {Partly, judged(judgeArenas, arenaFigures{Before: 10, Full: 110, Freed: 110, Go: 20, Trimmed: 20})},

		"a goroutine each":        {True, judged(judgeContexts, contextFigures{Each: 10, Started: 10})},
		"handlers stay":           {True, judged(judgeGone, goneFigures{Clients: 10, Listening: 10, Deaf: 10})},
		"some handlers stay":      {Partly, judged(judgeGone, goneFigures{Clients: 10, Listening: 5, Deaf: 10})},
		"Cancel is a function":    {True, judged(judgeBodies, bodyFigures{Cancel: "func()", Open: 10, Closed: 10})},
		"bodies hold nothing":     {Unclear, judged(judgeBodies, bodyFigures{Cancel: "<-chan struct {}"})},
		"closed pipes still hold": {True, judged(judgePipes, pipeFigures{Open: 10, Closed: 10, Errors: 10})},
		"no error":                {Unclear, judged(judgePipes, pipeFigures{Open: 10})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, happened := tt.got()
			assert.Equal(t, tt.want, got, happened)
			assert.NotContains(t, happened, "%!")
			assert.True(t, strings.HasSuffix(happened, "."), happened)
		})
	}
}

// judged is a judge with the figures of its variants.
func judged[T any](judge func([]T) (Verdict, string), figures ...T) func() (Verdict, string) {
	return func() (Verdict, string) { return judge(figures) }
}

// outcomes are those of the lab for guards that were killed so often in each scenario.
func outcomes(kills ...uint64) (f []labFigures) {
	for _, n := range kills {
		l := lived{Outcome: lab.Alive, Kills: n, Seconds: 7}
		if n > 0 {
			l.Outcome = lab.Killed
		}
		f = append(f, labFigures{Runs: map[string]lived{overloaded[0]: l, overloaded[1]: l}})
	}
	return f
}
