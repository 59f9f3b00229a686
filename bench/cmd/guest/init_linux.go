// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// guestMain is the first process of the machine: it mounts what a program
// expects, runs it, and switches off.
func guestMain() {
	status, err := serve()
	if err != nil {
		fmt.Println("guest:", err)
	}
	fmt.Printf("\n%s%d\n", endMark, status)
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	os.Exit(1)
}

func serve() (status int, err error) {
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"cgroup2", "/sys/fs/cgroup"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"},
	} {
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return 2, fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	_ = os.MkdirAll("/dev/shm", 0o1777)
	_ = unix.Mount("tmpfs", "/dev/shm", "tmpfs", 0, "")
	if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory +pids"), 0); err != nil {
		return 2, err
	}
	if err := loopback(); err != nil {
		return 2, err
	}
	args, err := os.ReadFile("/args")
	if err != nil {
		return 2, err
	}
	c := exec.Command("/program")
	if len(args) > 0 {
		c.Args = append(c.Args, strings.Split(string(args), "\x00")...)
	}
	c.Dir = "/tmp"
	c.Env = []string{"HOME=/tmp", "PATH=/", "TMPDIR=/tmp", "MEMGUARD_REQUIRE_CGROUP=1"}
	c.Stdout, c.Stderr = struct{ io.Writer }{os.Stdout}, struct{ io.Writer }{os.Stdout} // pipes: nobody looks at this console
	fmt.Println(beginMark)
	if err := c.Run(); c.ProcessState == nil {
		return 2, err
	}
	return c.ProcessState.ExitCode(), nil
}

// loopback switches on the network of the machine with itself.
func loopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r)
}
