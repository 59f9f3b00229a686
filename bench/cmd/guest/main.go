// SPDX-License-Identifier: Apache-2.0

// Guest runs programs in an emulated machine of its own, whose only memory
// controller is that of cgroup version 2: for hosts that have version 1, or
// where no memory cgroup may be created.
//
//	go run ./bench/cmd/guest --kernel vmlinuz -- ./bench/cmd/oomlab run bursts-45 --guard plain,memguard
//
// A program is a package of this module, which is built without cgo, or a static
// binary. It needs qemu-system-x86_64 and a kernel with cgroup v2, PSI and an
// initramfs built in; nothing of the host is mounted, and nothing is left behind.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if os.Getpid() == 1 {
		guestMain()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	status, err := hostMain(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		status = 2
	}
	stop()
	os.Exit(status)
}

// endMark precedes the exit status on the console.
const endMark = "memguard-guest: exit status "

func hostMain(ctx context.Context, args []string) (int, error) {
	f := flag.NewFlagSet("guest", flag.ContinueOnError)
	kernel := f.String("kernel", "", "file with the kernel (bzImage)")
	memory := f.Int("memory", 2048, "MiB of the machine")
	cpus := f.Int("cpus", 2, "processors of the machine")
	timeout := f.Duration("timeout", 20*time.Minute, "after which the machine is switched off")
	verbose := f.Bool("v", false, "show what the kernel says")
	f.Usage = func() {
		fmt.Fprintln(f.Output(), "usage: guest --kernel FILE [flags] -- PROGRAM [ARG...]\n\nRun a program in an emulated machine with cgroup version 2.")
		f.PrintDefaults()
	}
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0, nil
	} else if err != nil || *kernel == "" || f.NArg() == 0 {
		f.Usage()
		return 2, nil
	}
	dir, err := os.MkdirTemp("", "memguard-guest-*")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	program := f.Arg(0)
	if st, err := os.Stat(program); err != nil {
		return 0, err
	} else if st.IsDir() {
		fmt.Fprintf(os.Stderr, "guest: building %s\n", program)
		if program, err = build(ctx, program, filepath.Join(dir, filepath.Base(program))); err != nil {
			return 0, err
		}
	}
	init, err := build(ctx, "github.com/memguard/memguard-go/bench/cmd/guest", filepath.Join(dir, "init"))
	if err != nil {
		return 0, err
	}
	image := filepath.Join(dir, "initramfs")
	err = writeImage(image, []file{
		{name: "init", from: init},
		{name: "program", from: program},
		{name: "args", text: strings.Join(f.Args()[1:], "\x00")},
	})
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("the machine ran longer than %v", *timeout))
	defer cancel()
	return boot(ctx, *kernel, image, *memory, *cpus, *verbose)
}

// build makes a static binary.
func build(ctx context.Context, pkg, out string) (string, error) {
	c := exec.CommandContext(ctx, "go", "build", "-o", out, pkg)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	c.Stderr = os.Stderr
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("go build %s: %w", pkg, err)
	}
	return out, nil
}

// boot runs the machine and copies its console until it switches itself off.
func boot(ctx context.Context, kernel, image string, memory, cpus int, verbose bool) (int, error) {
	line := "console=ttyS0 panic=-1 psi=1 cgroup_no_v1=all"
	if !verbose {
		line += " quiet loglevel=0"
	}
	c := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max",
		"-m", strconv.Itoa(memory), "-smp", strconv.Itoa(cpus), "-nographic", "-no-reboot", "-net", "none",
		"-kernel", kernel, "-initrd", image, "-append", line)
	c.Stderr = os.Stderr
	console, err := c.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := c.Start(); err != nil {
		return 0, err
	}
	status, copyErr := copyConsole(os.Stdout, console, verbose)
	err = c.Wait()
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if err = errors.Join(copyErr, err); err != nil {
		return 0, err
	}
	if status < 0 {
		return 0, errors.New("the machine ended without a word of its program: try -v")
	}
	return status, nil
}

// beginMark is on the console before the first byte of the program.
const beginMark = "memguard-guest: begin"

// copyConsole copies what the program prints and returns its exit status, -1 if
// it was not told.
func copyConsole(to io.Writer, console io.Reader, all bool) (status int, err error) {
	status = -1
	begun := all
	r := bufio.NewReaderSize(console, 1<<16)
	for {
		line, err := r.ReadString('\n')
		text := strings.TrimRight(line, "\r\n")
		if _, n, ok := strings.Cut(text, endMark); ok {
			status, _ = strconv.Atoi(n)
		} else if strings.HasSuffix(text, beginMark) {
			begun = true
		} else if begun && status < 0 && line != "" {
			if _, err := fmt.Fprintln(to, text); err != nil {
				return status, err
			}
		}
		if errors.Is(err, io.EOF) {
			return status, nil
		} else if err != nil {
			return status, err
		}
	}
}
