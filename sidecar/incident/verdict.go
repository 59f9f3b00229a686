// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/attach"
)

// rose is whether a counter did: yes, no, or unknown.
func rose(before, after memguard.Count) (yes, known bool) {
	b, ok := before.Get()
	a, ok2 := after.Get()
	return ok && ok2 && a > b, ok && ok2
}

// bounded is a limit that is known and is one.
func bounded(limit memguard.Bytes) (uint64, bool) {
	n, ok := limit.Get()
	return n, ok && n > 0 && n != memguard.Unlimited
}

// fill is how much of its limit a level used at the last look.
func (l *Level) fill() (float64, bool) {
	limit, ok := bounded(l.Limit)
	usage, ok2 := l.Usage.Get()
	return float64(usage) / float64(max(limit, 1)), ok && ok2
}

// kills is what the counters say: that a process of the own cgroup was killed, that
// one was somewhere below the cgroups above, that one was on the machine.
type kills struct {
	own, ownKnown         bool
	above, machine        bool
	machineKnown, counted bool // any counter of a cgroup is known
}

func (e *Evidence) kills() (k kills) {
	for i, l := range e.Cgroups {
		yes, known := rose(l.Before, l.After)
		if i == 0 {
			k.own, k.ownKnown = yes, known
		} else if yes {
			k.above = true
		}
		k.counted = k.counted || known
	}
	k.machine, k.machineKnown = rose(e.Machine.Before, e.Machine.After)
	return k
}

// reached finds the cgroup whose limit a kill was for, and how sure that is; the
// index is -1 where it was none of them, so that the machine itself had run out.
func (e *Evidence) reached() (level int, how string) {
	level = -1
	fullest := -1.0
	counted, dark := 0, 0
	for i := range e.Cgroups {
		l := &e.Cgroups[i]
		_, limitKnown := l.Limit.Get()
		yes, known := rose(l.HitBefore, l.HitAfter)
		switch {
		case known:
			counted++
		case limitKnown || i < len(e.Cgroups)-1: // the root of version 2 has neither limit nor count
			dark++
		}
		if !yes {
			continue
		}
		// Version 1 counts those too that reclaim helped: then the fullest it was.
		if fill, _ := l.fill(); fill > fullest {
			level, fullest = i, fill
		}
	}
	switch {
	case level >= 0:
		return level, fmt.Sprintf("the kernel counts that it could not get below its limit (%s to %s)", count(e.Cgroups[level].HitBefore), count(e.Cgroups[level].HitAfter))
	case counted > 0 && dark == 0:
		return -1, "the kernel counts for none of its cgroups that the limit was reached"
	}
	for i := range e.Cgroups {
		if fill, ok := e.Cgroups[i].fill(); ok && fill >= near {
			return i, fmt.Sprintf("it was the first to be full, with %.0f %% used at the last look", 100*fill)
		}
	}
	for i := range e.Cgroups { // a burst between two looks: which, only the order can say
		if _, ok := bounded(e.Cgroups[i].Limit); ok {
			return i, "it is the nearest one that has a limit"
		}
	}
	return 0, "which limit it was is not counted here"
}

// judge says how it ended: the cause, the rest of the sentence that begins with who,
// and what that is read from.
func (r *Report) judge(e *Evidence, bb *BlackBox) {
	k, x := e.kills(), e.Exit
	killed := x.Known && x.Signal == sigkill
	unseen := !x.Known
	switch w := r.Words; {
	case x.Became:
		r.say(Replaced, "did not end: it runs another program by now (execve)%s", r.lived())
	case killed && k.own, unseen && k.own && w == nil && (bb == nil || bb.Cause != CleanExit):
		r.oomKill(e, fmt.Sprintf("oom_kill of its cgroup %s went from %s to %s", r.dir(0), count(e.Cgroups[0].Before), count(e.Cgroups[0].After)))
	case killed && !k.ownKnown && k.above:
		r.oomKill(e, "its own cgroup can no longer be read, and oom_kill of one above it rose")
	case killed && !k.counted && k.machine:
		r.say(OOMMachine, "was killed by the kernel for lack of memory%s: the machine's count of OOM kills rose, and no memory cgroup of it keeps one", r.lived())
		r.why("oom_kill of /proc/vmstat went from %s to %s", count(e.Machine.Before), count(e.Machine.After))
	case killed && !k.ownKnown && !(k.machineKnown && !k.machine) && r.nearLimit():
		r.say(OOMSuspected, "was ended by SIGKILL%s %s, and that it was the kernel for lack of memory is suspected: its count of such kills could not be read", r.lived(), r.held())
	case w != nil && (unseen || x.Code == 2 || x.Signal == 6):
		r.words(w)
	case x.Known && x.Signal != 0:
		r.signalled(e, k)
	case x.Known && x.Code == memguard.ExitStatus:
		why := ""
		if bb != nil {
			why = bb.gaveUp()
		}
		if why == "" {
			why = fmt.Sprintf("status %d is that of a guard that is told to do so", x.Code)
		}
		r.say(GaveUp, "was ended by its own guard%s, because collecting helped no longer: %s", r.lived(), tame(why, mostText))
	case x.Known && x.Code == 0:
		r.say(CleanExit, "ended as it meant to, with exit status 0%s", r.lived())
	case x.Known:
		r.exited(e)
	case bb != nil && bb.Cause != StillRunning && bb.Cause != NotKnown && bb.Cause != OtherDeath:
		r.Cause, r.Verdict = bb.Cause, tame(strings.TrimSuffix(bb.Verdict, "."), mostText)
		r.why("how it ended was not seen; that is what its black box says")
	case r.nearLimit():
		r.say(OOMSuspected, "ended%s %s, nobody saw how, and an OOM kill is suspected", r.lived(), r.held())
	default:
		r.say(NotKnown, "ended%s, and how is not known: nobody saw its exit status, and no counter says that the kernel killed it", r.lived())
	}
	r.circumstances(e, k)
}

// say sets the verdict without its end.
func (r *Report) say(c Cause, format string, args ...any) {
	r.Cause = c
	r.Verdict = r.who() + " " + fmt.Sprintf(format, args...)
}

// why adds a fact that the verdict is read from.
func (r *Report) why(format string, args ...any) {
	r.Why = append(r.Why, tame(fmt.Sprintf(format, args...), mostText))
}

func (r *Report) who() string {
	return fmt.Sprintf("%s (pid %d)", r.Target, r.Process.PID)
}

func (r *Report) lived() string {
	if r.Lived == nil {
		return ""
	}
	d := time.Duration(*r.Lived * float64(time.Second))
	if d < 10*time.Second {
		return " after " + d.Round(100*time.Millisecond).String()
	}
	return " after " + d.Round(time.Second).String()
}

// oomKill is for a kill that the kernel counted.
func (r *Report) oomKill(e *Evidence, counted string) {
	level, how := e.reached()
	switch {
	case level < 0:
		r.say(OOMMachine, "was killed by the kernel for lack of memory%s: the machine had run out, no limit of its cgroups", r.lived())
	case level == 0:
		r.say(OOMKill, "was killed by the kernel for lack of memory%s: its own cgroup reached %s", r.lived(), r.limitOf(0))
	default:
		r.say(OOMAncestor, "was killed by the kernel for lack of memory%s: not its own cgroup but %s above it reached %s", r.lived(), r.dir(level), r.limitOf(level))
	}
	r.why("%s", counted)
	if level >= 0 {
		r.why("%s: %s", r.dir(level), how)
	} else {
		r.why("%s", how)
	}
	if !e.Exit.Known {
		r.why("its exit status was not seen: that it was this process of the cgroup follows from its end at that time")
	}
}

func (r *Report) dir(level int) string { return tame(r.Cgroups[level].Dir, mostName) }

func (r *Report) limitOf(level int) string {
	if n, ok := bounded(r.Cgroups[level].Limit); ok {
		return "its limit of " + mib(float64(n))
	}
	return "a limit that is not known"
}

// nearLimit reports whether it was so full at the last look that an end without a
// word is suspected to be an OOM kill.
func (r *Report) nearLimit() bool {
	usage, ok := r.Usage.Get()
	limit, ok2 := bounded(r.Limit)
	return ok && ok2 && float64(usage) >= near*float64(limit)
}

// held is how full it was.
func (r *Report) held() string {
	usage, _ := r.Usage.Get()
	limit, _ := bounded(r.Limit)
	return fmt.Sprintf("at %s of %s (%.0f %%)", mib(float64(usage)), mib(float64(limit)), 100*float64(usage)/float64(max(limit, 1)))
}

// words is for an end that the Go runtime told of.
func (r *Report) words(w *Words) {
	where := ""
	if s := w.where(); s != "" {
		where = ", in " + s
	}
	switch w.Cause {
	case GoOutOfMemory:
		r.say(w.Cause, "ended itself%s because the operating system gave the Go runtime no memory: %s%s", r.lived(), w.Text, where)
		r.why("that is a limit of its address space (RLIMIT_AS) or of the machine's commitments, and not its cgroup's, which kills without a word")
	case GoPanic:
		r.say(w.Cause, "ended with a Go panic%s: %s%s", r.lived(), w.Text, where)
	case GoFatal:
		r.say(w.Cause, "ended with a fatal error of the Go runtime%s: %s%s", r.lived(), w.Text, where)
	default:
		r.say(Signalled, "ended itself on %s%s, with a dump of its goroutines; who sent that is not recorded", w.Signal, r.lived())
	}
	r.why("it printed: %s", w.Text)
}

// signalled is for a signal without an OOM kill.
func (r *Report) signalled(e *Evidence, k kills) {
	name := signalName(e.Exit.Signal)
	if e.Exit.Signal != sigkill {
		r.say(Signalled, "was ended by %s%s; who sent it is not recorded", name, r.lived())
		return
	}
	switch {
	case k.ownKnown:
		r.say(Signalled, "was ended by SIGKILL%s, and not for lack of memory: the kernel counts no OOM kill in its cgroup; who sent it is not recorded", r.lived())
	case k.machineKnown && !k.machine:
		r.say(Signalled, "was ended by SIGKILL%s, and not for lack of memory: the kernel counts no OOM kill on the whole machine; who sent it is not recorded", r.lived())
	default:
		r.say(Signalled, "was ended by SIGKILL%s; whether by the kernel for lack of memory is not known, its counts could not be read", r.lived())
	}
}

// exited is for an exit status that says little by itself.
func (r *Report) exited(e *Evidence) {
	code, more := e.Exit.Code, ""
	switch {
	case code == 2 && r.Process.Go != "":
		// What the runtime printed is not here; the goroutines may tell. Whoever leaves
		// by os.Exit or panics is running meanwhile.
		busy, asleep := dying(e.Snapshot)
		if asleep > 0 && busy == "" {
			r.say(GoFatal, "ended with exit status 2%s while all its goroutines were asleep, which the Go runtime calls a deadlock", r.lived())
			r.why("of the %d groups of goroutines at its end none was running", asleep)
			return
		}
		more = ", that of a Go panic or fatal error, but what it printed was not seen"
		if len(r.Stderr) > 0 {
			more = ", that of a Go panic or fatal error, but the last that it printed does not say which"
		}
		if busy != "" {
			more += "; the goroutine that ran was started as " + tame(busy, mostName)
		}
	case code > 128 && code < 128+len(signals):
		more = fmt.Sprintf(", with which a shell says that its child was ended by %s", signalName(code-128))
	}
	r.say(ExitFailure, "ended by itself with exit status %d%s%s", code, r.lived(), more)
}

// dying looks at the goroutines of a process whose exit was held: the function that
// one was started with which was not waiting, and how many groups of them waited.
func dying(s *attach.Snapshot) (busy string, asleep int) {
	if s == nil || s.How.Way != "exit hold" || s.Goroutines.Unclustered > 0 {
		return "", 0
	}
	for _, c := range s.Goroutines.Clusters {
		switch {
		case c.System:
		case c.State == "waiting":
			asleep++
		case busy == "" || c.State == "running":
			busy = cmp.Or(c.Start, "?")
		}
	}
	return busy, asleep
}

// circumstances are facts beside the verdict that a reader would ask for.
func (r *Report) circumstances(e *Evidence, k kills) {
	if e.Exit.Known {
		from := ""
		if e.Exit.From != "" {
			from = ", seen by " + tame(e.Exit.From, mostName)
		}
		if e.Exit.Signal != 0 {
			r.why("it was ended by %s%s", signalName(e.Exit.Signal), from)
		} else {
			r.why("its exit status is %d%s", e.Exit.Code, from)
		}
	}
	isKill := r.Cause == OOMKill || r.Cause == OOMAncestor || r.Cause == OOMMachine
	if k.own && !isKill {
		r.why("the kernel killed another process of its cgroup for lack of memory at that time")
	}
	if k.above && !k.own && k.ownKnown {
		for i, l := range e.Cgroups {
			if yes, _ := rose(l.Before, l.After); yes {
				r.why("the kernel killed a process below %s (%s) for lack of memory at that time, but counts none in this one's own cgroup", r.dir(i), r.limitOf(i))
				break
			}
		}
	}
	if !isKill && k.machine && !k.own && !k.above {
		r.why("the kernel killed a process elsewhere on the machine for lack of memory at that time")
	}
}

// suspect names who held the memory, for an end that was for lack of it.
func (r *Report) suspect() string {
	if !r.Cause.memory() {
		return ""
	}
	if c := r.deep(); c != nil {
		return fmt.Sprintf("; %d goroutines were in %s, and their stacks held %s", c.Count, c.Func, r.row(memguard.RowStacks))
	}
	if g := r.Growth; g != nil && len(g.Top) > 0 {
		top := g.Top[0]
		what := "of the heap in use"
		if g.Base != "" {
			what = "of what the heap grew by"
		}
		return fmt.Sprintf("; %s allocated %.0f %% %s (%s)", top.Func, 100*g.share(&top), what, mib(float64(top.Bytes)))
	}
	return ""
}

// deep is the biggest cluster of goroutines where stacks hold more than the heap.
func (r *Report) deep() *Cluster {
	if r.Ledger == nil || r.Goroutines == nil || len(r.Goroutines.Clusters) == 0 {
		return nil
	}
	stacks, ok := r.Ledger.Row(memguard.RowStacks)
	if !ok {
		return nil
	}
	live, ok := r.Ledger.Row(memguard.RowLive)
	if !ok || stacks <= live {
		return nil
	}
	return &r.Goroutines.Clusters[0]
}

func (r *Report) row(name string) string {
	n, _ := r.Ledger.Row(name)
	return mib(float64(n))
}
