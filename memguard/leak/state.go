// SPDX-License-Identifier: Apache-2.0

package leak

import "strings"

// State is what a goroutine does, in the words of a dump's header
// (runtime/runtime2.go, waitReasonStrings): "chan receive", "select",
// "IO wait", "sync.Mutex.Lock", "syscall", "running". Of a profile, which does
// not say, it is inferred from the runtime's frames. Empty is unknown.
type State string

// class is the part of a state that a cluster is known by. It is the same
// whichever release said it, and whether it was said or inferred.
type class byte

const (
	unknownState class = iota
	onCPU              // running, or ready to
	receiving
	sending
	selecting
	locking // semaphores: mutexes, wait groups, conditions
	ioWait
	sleeping
	inSyscall
	otherWait // coroutines, and waits of the runtime's own goroutines
)

func (s State) class() class {
	s = State(strings.TrimSuffix(string(s), " (durable)"))
	switch s {
	case "":
		return unknownState
	case "running", "runnable", "preempted", "copystack", "debug call":
		return onCPU
	case "chan receive", "chan receive (nil chan)":
		return receiving
	case "chan send", "chan send (nil chan)":
		return sending
	case "select", "select (no cases)":
		return selecting
	case "semacquire":
		return locking
	case "IO wait":
		return ioWait
	case "sleep":
		return sleeping
	case "syscall":
		return inSyscall
	}
	if strings.HasPrefix(string(s), "sync.") {
		return locking
	}
	return otherWait
}

// blocked says that a goroutine of this state waits for another goroutine of
// the program. Whoever waits for a peer, a timer or the kernel may be at work.
func (c class) blocked() bool {
	return c == receiving || c == sending || c == selecting || c == locking
}

// leafStates are the functions right below a stack's parking function, and what
// a goroutine that parks there waits for.
var leafStates = map[string]State{
	"runtime.chanrecv":      "chan receive",
	"runtime.chansend":      "chan send",
	"runtime.selectgo":      "select",
	"runtime.block":         "select (no cases)",
	"runtime.netpollblock":  "IO wait",
	"runtime.timeSleep":     "sleep",
	"time.Sleep":            "sleep",
	"runtime.coroswitch":    "coroutine",
	"runtime.coroswitch_m":  "coroutine",
	"runtime.cgocall":       "syscall",
	"runtime.asmcgocall":    "syscall",
	"runtime.notetsleepg":   "syscall",
	"runtime.synctestWait":  "synctest.Wait",
	"runtime.synctestRun":   "synctest.Run",
	"runtime.semacquire1":   "semacquire",
	"runtime.goyield":       "runnable",
	"runtime.gosched_m":     "runnable",
	"runtime.asyncPreempt":  "runnable",
	"runtime.asyncPreempt2": "runnable",

	"sync.runtime_Semacquire":                      "semacquire",
	"sync.runtime_notifyListWait":                  "sync.Cond.Wait",
	"sync.runtime_SemacquireWaitGroup":             "sync.WaitGroup.Wait",
	"sync.runtime_SemacquireMutex":                 "sync.Mutex.Lock",
	"internal/sync.runtime_SemacquireMutex":        "sync.Mutex.Lock",
	"sync.runtime_SemacquireRWMutexR":              "sync.RWMutex.RLock",
	"sync.runtime_SemacquireRWMutex":               "sync.RWMutex.Lock",
	"internal/poll.runtime_pollWait":               "IO wait",
	"syscall.Syscall":                              "syscall",
	"syscall.Syscall6":                             "syscall",
	"syscall.RawSyscall6":                          "syscall",
	"internal/runtime/syscall.Syscall6":            "syscall",
	"internal/runtime/syscall/linux.Syscall6":      "syscall",
	"runtime/internal/syscall.Syscall6":            "syscall",
	"os/signal.signal_recv":                        "syscall",
	"internal/synctest.Wait":                       "synctest.Wait",
	"syscall.syscall":                              "syscall", // darwin
	"syscall.syscall6":                             "syscall",
	"syscall.SyscallN":                             "syscall", // windows
	"internal/runtime/syscall/windows.SyscallNRaw": "syscall",
}

// infer reads the state off the innermost frames of a profile's stack. Stacks
// of debug=1 come without the runtime's frames, where channel operations show
// nothing: those stay unknown.
func infer(stack []Frame) State {
	parked := len(stack) > 0 && stack[0].Func == "runtime.gopark"
	for i, f := range stack {
		s := leafStates[f.Func]
		if s == "semacquire" { // the caller says of what
			for _, g := range stack[i+1 : min(i+3, len(stack))] {
				if is := leafStates[g.Func]; is != "" {
					return is
				}
			}
		}
		if s != "" {
			return s
		}
		if !ofRuntime(f.Func) || i == 6 {
			break
		}
	}
	switch {
	case parked, len(stack) == 0:
		return ""
	case ofRuntime(stack[0].Func):
		return "running"
	}
	return ""
}
