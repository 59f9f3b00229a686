// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// credentials are what decides who may read whom (proc_pid_status(5)).
type credentials struct {
	uids, gids [3]uint64 // real, effective, saved
	permitted  uint64    // capabilities
	effective  uint64
}

const capSysPtrace = 1 << 19 // include/uapi/linux/capability.h

func readCredentials(pid string) (credentials, error) {
	b, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return credentials{}, err
	}
	return parseCredentials(string(b))
}

func parseCredentials(status string) (credentials, error) {
	var c credentials
	seen := 0
	for line := range strings.Lines(status) {
		key, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		ids := func(dst *[3]uint64) error {
			if len(fields) < 3 {
				return fmt.Errorf("attach: status: %q", line)
			}
			for i := range dst {
				var err error
				if dst[i], err = strconv.ParseUint(fields[i], 10, 32); err != nil {
					return fmt.Errorf("attach: status: %w", err)
				}
			}
			seen++
			return nil
		}
		var err error
		switch key {
		case "Uid":
			err = ids(&c.uids)
		case "Gid":
			err = ids(&c.gids)
		case "CapPrm":
			c.permitted, err = strconv.ParseUint(strings.TrimSpace(rest), 16, 64)
			seen++
		case "CapEff":
			c.effective, err = strconv.ParseUint(strings.TrimSpace(rest), 16, 64)
			seen++
		}
		if err != nil {
			return c, err
		}
	}
	if seen != 4 {
		return c, fmt.Errorf("attach: status: %d of 4 lines", seen)
	}
	return c, nil
}

// refused says why the kernel refused to let this process read another.
func refused(pid int, cause error) error {
	me, err := readCredentials("self")
	them, err2 := readCredentials(strconv.Itoa(pid))
	e := &PermissionError{PID: pid, Rule: RuleUnknown, Cause: cause,
		Why: "no rule that can be seen from here forbids it: seccomp, AppArmor or SELinux, another user namespace, or a target that is not dumpable",
		Fix: "on gVisor or with a seccomp profile of your own, allow process_vm_readv"}
	if err != nil || err2 != nil {
		return e
	}
	scope, _ := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	e.Rule, e.Why, e.Fix = judge(me, them, strings.TrimSpace(string(scope)), e.Why, e.Fix)
	if e.Rule == RuleUnknown && !dumpable(pid) {
		e.Rule = RuleDumpable
		e.Why = "the target is not dumpable: its executable is not readable for its user, or it has changed its user or capabilities (prctl(2), PR_SET_DUMPABLE)"
		e.Fix = "make the executable readable (chmod a+r in the image), or run the reader with CAP_SYS_PTRACE"
	}
	return e
}

// judge applies the kernel's rules (kernel/ptrace.c, __ptrace_may_access;
// security/commoncap.c, cap_ptrace_access_check; security/yama/yama_lsm.c).
func judge(me, them credentials, scope, why, fix string) (Rule, string, string) {
	privileged := me.effective&capSysPtrace != 0
	same := true
	for i := range 3 {
		same = same && them.uids[i] == me.uids[1] && them.gids[i] == me.gids[1]
	}
	switch {
	case scope == "3":
		return RuleYama, "kernel.yama.ptrace_scope is 3: nobody may, until the next boot", "only another kernel setting helps: kernel.yama.ptrace_scope=0 or 1 at boot"
	case privileged:
		return RuleUnknown, why, fix
	case !same:
		return RuleUID, fmt.Sprintf("the target runs as uid %d gid %d, the reader as uid %d gid %d", them.uids[1], them.gids[1], me.uids[1], me.gids[1]),
			"run the reader as the target's user (Kubernetes: the same runAsUser and runAsGroup, with shareProcessNamespace: true), or as uid 0 with capabilities.add [SYS_PTRACE]"
	case them.permitted&^me.permitted != 0:
		return RuleCaps, fmt.Sprintf("the target has capabilities that the reader has not (%#x)", them.permitted&^me.permitted),
			"drop them in the target (Kubernetes: capabilities.drop [ALL] in both containers), or give the reader SYS_PTRACE"
	case scope == "1" || scope == "2":
		return RuleYama, "kernel.yama.ptrace_scope is " + scope + ": the same user is not enough",
			"run the reader as uid 0 with capabilities drop [ALL], add [SYS_PTRACE], or set the node's kernel.yama.ptrace_scope=0, or have the target call prctl(PR_SET_PTRACER)"
	}
	return RuleUnknown, why, fix
}

// dumpable reports whether the process's files belong to its user; those of a
// process that is not dumpable belong to root (proc(5)). For root's own processes
// it cannot be told.
func dumpable(pid int) bool {
	uid, ok := owner(fmt.Sprintf("/proc/%d/environ", pid))
	c, err := readCredentials(strconv.Itoa(pid))
	return !ok || err != nil || uid == c.uids[1]
}
