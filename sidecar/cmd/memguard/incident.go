// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/scavenge/cgroup"
	"github.com/memguard/memguard-go/sidecar/incident"
	"github.com/spf13/cobra"
)

func incidentCommand() *cobra.Command {
	var (
		p     printer
		fail  failOn
		list  bool
		last  = above0(2 * time.Minute)
		group string
	)
	c := &cobra.Command{
		Use:   "incident DIR|FILE",
		Short: "Say how a service died: from its black box, or as the sidecar saw it",
		Long: `Incident list, show and open read the reports that "memguard sidecar" has kept.

With a directory, incident reads what a service with a guard left behind there:
the black box, which survives SIGKILL and the OOM killer, and the profiles that
were captured on the way to the limit. It says whether the kernel killed the
service for lack of memory, shows memory against the limit over the last minutes,
what was found and done, and which profiles to compare.

In a directory it takes the newest black box whose process has ended, or if all
run the newest; --list shows all of them. A FILE is one box, also a copy: of a
copy it cannot tell whether the process still ran.

That the kernel killed it is certain when the counter of the service's cgroup is
higher than the service saw it: name the group with --cgroup where it still
stands. Else it is suspected when the last record is near the limit.

An OOM kill, also a suspected one, counts as critical for --fail-on, any other
end that was not meant as a warning.`,
		Example: "  memguard incident show\n  memguard incident /var/lib/orders/memguard\n  memguard incident --list /var/lib/orders/memguard\n  memguard incident --cgroup /sys/fs/cgroup/system.slice/orders.service --json DIR | jq -r .verdict",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p.out = c.OutOrStdout()
			o := incident.Options{Last: time.Duration(last)}
			boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
			o.Boot = strings.TrimSpace(string(boot))
			if group != "" {
				kills, err := killsOf(group)
				if err != nil {
					return cannotLook(err)
				}
				o.OOMKills = kills
			}
			found, err := readBoxes(c.ErrOrStderr(), args[0], o, list)
			if err != nil {
				return cannotLook(hint(err))
			}
			if list {
				err = p.print(found, func(w io.Writer) error { return listBoxes(w, found) })
			} else {
				err = p.show(found[0], found[0].WriteText)
			}
			if err != nil {
				return err
			}
			var worst memguard.Severity
			for _, i := range found {
				worst = max(worst, i.Cause.Severity())
			}
			return fail.status(worst)
		},
	}
	c.Flags().BoolVar(&list, "list", false, "a line for each black box, the newest first; with --json an array")
	c.Flags().Var(&last, "last", "how much of the time before the end to show")
	c.Flags().StringVar(&group, "cgroup", "", "`directory` of the service's memory cgroup, for the kernel's count of OOM kills")
	p.jsonFlag(c)
	fail.flag(c)
	c.AddCommand(incidentListCommand(), incidentShowCommand(), incidentOpenCommand())
	return c
}

// readBoxes reads all boxes that a path means, or the one to show. What is no
// box is said and passed over, if another is one.
func readBoxes(stderr io.Writer, path string, o incident.Options, all bool) (found []*incident.BlackBox, err error) {
	boxes, err := incident.Find(path)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, box := range boxes {
		i, err := incident.Read(box, o)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !all && i.Cause != incident.StillRunning {
			found = []*incident.BlackBox{i}
			break
		}
		if all || len(found) == 0 {
			found = append(found, i)
		}
	}
	if len(found) == 0 {
		return nil, errors.Join(errs...)
	}
	for _, err := range errs {
		say(stderr, err)
	}
	return found, nil
}

func listBoxes(w io.Writer, found []*incident.BlackBox) error {
	for _, i := range found {
		_, err := fmt.Fprintf(w, "%s  %-17s  %s\n", i.Last.UTC().Format(time.RFC3339), i.Cause, filepath.Base(i.Box))
		if err != nil {
			return err
		}
	}
	return nil
}

// killsOf reads how many processes of a cgroup the kernel killed for lack of memory.
func killsOf(dir string) (memguard.Count, error) {
	g, err := cgroup.OpenDir(dir)
	if err != nil {
		return memguard.Count{}, err
	}
	defer g.Close()
	r, err := g.Read()
	if err != nil {
		return memguard.Count{}, err
	}
	n, ok := r.Events.OOMKill.Value()
	if !ok {
		return memguard.Count{}, fmt.Errorf("%s: the kernel does not count OOM kills there", dir)
	}
	return memguard.Known(n), nil
}
