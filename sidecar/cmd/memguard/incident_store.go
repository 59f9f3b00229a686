// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/config"
	"github.com/memguard/memguard-go/sidecar/incident"
	"github.com/spf13/cobra"
)

// systemState is above the state directories of the systemd unit, one for each user,
// and the place for one of the whole machine.
const systemState = "/var/lib/memguard"

// defaultStore is where a sidecar keeps its incidents that was not told otherwise, by
// the rules of its own state_dir; that of the system's comes last. The variable
// that stands for --state-dir counts whether the directory is there or not.
func defaultStore(getenv func(string) string) string {
	if dir := getenv(envStateDir); dir != "" {
		return filepath.Join(dir, config.IncidentsDir)
	}
	own := filepath.Join(config.StateDir(getenv), config.IncidentsDir)
	if _, err := os.Stat(own); filepath.IsAbs(own) && err == nil {
		return own
	}
	return filepath.Join(systemState, config.IncidentsDir)
}

func storeFlag(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "store", "", "`directory` in which the sidecar keeps incidents: incidents in its state_dir (default that of $"+envStateDir+", else the user's, else "+systemState+"/incidents)")
	c.ValidArgsFunction = func(*cobra.Command, []string, string) (ids []cobra.Completion, _ cobra.ShellCompDirective) {
		if s, err := readStore(*dir); err == nil {
			all, _ := s.List()
			for _, i := range all {
				ids = append(ids, cobra.CompletionWithDesc(i.ID, string(i.Cause)))
			}
		}
		return ids, cobra.ShellCompDirectiveNoFileComp
	}
}

func incidentListCommand() *cobra.Command {
	var (
		p    printer
		fail failOn
		dir  string
	)
	c := &cobra.Command{
		Use:   "list",
		Short: "A line for each incident that the sidecar has kept, the newest first",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p.out = c.OutOrStdout()
			s, err := readStore(dir)
			if err != nil {
				return err
			}
			all, err := s.List()
			if err != nil {
				return cannotLook(err)
			}
			err = p.print(all, func(w io.Writer) error {
				if len(all) == 0 {
					_, err := fmt.Fprintln(w, "no incidents")
					return err
				}
				width, _ := terminal(w)
				for _, i := range all {
					line := fmt.Sprintf("%s  %-17s  %s", i.ID, i.Cause, i.Verdict)
					if isTerminal(w) {
						line = fit(line, width)
					}
					if _, err := fmt.Fprintln(w, line); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			var worst memguard.Severity
			for _, i := range all {
				worst = max(worst, i.Severity)
			}
			return fail.status(worst)
		},
	}
	storeFlag(c, &dir)
	p.jsonFlag(c)
	fail.flag(c)
	return c
}

// format is the value of --format.
type format string

var formats = []string{"text", "markdown", "json", "html"}

func (f *format) Set(s string) error {
	for _, known := range formats {
		if s == known {
			*f = format(s)
			return nil
		}
	}
	return errors.New("want text, markdown, json or html")
}

func (f *format) String() string { return string(*f) }
func (f *format) Type() string   { return "format" }

func incidentShowCommand() *cobra.Command {
	var (
		p    printer
		fail failOn
		dir  string
		as   = format(formats[0])
	)
	c := &cobra.Command{
		Use:     "show [ID]",
		Short:   "Show an incident that the sidecar has kept: the given one, or the latest",
		Example: "  memguard incident show\n  memguard incident show --format markdown > incident.md",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p.out = c.OutOrStdout()
			s, r, err := findIncident(dir, args)
			if err != nil {
				return err
			}
			p.json = p.json || as == "json"
			switch as {
			case "markdown":
				err = p.print(nil, r.WriteMarkdown)
			case "html":
				var files []incident.File
				if files, err = s.Files(r.ID); err != nil {
					return cannotLook(err)
				}
				err = p.print(nil, func(w io.Writer) error { return r.WriteHTML(w, files) })
			default:
				err = p.show(r, r.WriteText)
			}
			if err != nil {
				return err
			}
			return fail.status(r.Severity)
		},
	}
	storeFlag(c, &dir)
	c.Flags().Var(&as, "format", "text, markdown, json or html")
	p.jsonFlag(c)
	c.MarkFlagsMutuallyExclusive("format", "json")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	fail.flag(c)
	return c
}

func incidentOpenCommand() *cobra.Command {
	var dir, output string
	c := &cobra.Command{
		Use:   "open [ID]",
		Short: "Write an incident as a page, the given one or the latest, and open it in a browser",
		Long: `Open writes the page to a file, prints its name, and opens it where there is a
desktop with a browser. The page has everything in it, the profiles too: it can be
sent to somebody as it is.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, r, err := findIncident(dir, args)
			if err != nil {
				return err
			}
			files, err := s.Files(r.ID)
			if err != nil {
				return cannotLook(err)
			}
			path, err := writePage(r, files, output)
			if err != nil {
				return cannotLook(fmt.Errorf("writing: %w", err))
			}
			if _, err := fmt.Fprintln(c.OutOrStdout(), path); err != nil {
				return cannotLook(fmt.Errorf("writing: %w", err))
			}
			if output == "" && isTerminal(c.OutOrStdout()) {
				if err := browse(c.Context(), path); err != nil {
					say(c.ErrOrStderr(), fmt.Errorf("no browser was opened: %w", err))
				}
			}
			return nil
		},
	}
	storeFlag(c, &dir)
	c.Flags().StringVarP(&output, "output", "o", "", "write the page to this `file`, and open none")
	return c
}

func readStore(dir string) (*incident.Store, error) {
	named := dir != ""
	if !named {
		dir = defaultStore(os.Getenv)
	}
	s, err := incident.ReadStore(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
		err = fmt.Errorf("%w (name the sidecar's with --store)", err)
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w (it belongs to the user that the sidecar runs as)", err)
	}
	if err != nil {
		return nil, cannotLook(err)
	}
	return s, nil
}

// findIncident reads the incident that is asked for, or the latest.
func findIncident(dir string, args []string) (*incident.Store, *incident.Report, error) {
	s, err := readStore(dir)
	if err != nil {
		return nil, nil, err
	}
	id := ""
	if len(args) > 0 {
		id = args[0]
	}
	if id == "" || id == "latest" {
		all, err := s.List()
		if err != nil {
			return nil, nil, cannotLook(err)
		}
		if len(all) == 0 {
			return nil, nil, cannotLook(errors.New("the store has no incidents"))
		}
		id = all[0].ID
	}
	r, err := s.Get(id)
	if err != nil {
		return nil, nil, cannotLook(err)
	}
	return s, r, nil
}

// writePage writes the page to the named file, or to one that only its user reads.
func writePage(r *incident.Report, files []incident.File, path string) (_ string, err error) {
	var f *os.File
	if path != "" {
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	} else {
		f, err = os.CreateTemp("", "memguard-incident-*.html") // mode 0600
	}
	if err != nil {
		return "", err
	}
	err = r.WriteHTML(f, files)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	return filepath.Abs(f.Name())
}

// browse opens a file in the desktop's browser, if there is one.
func browse(ctx context.Context, path string) error {
	name := "xdg-open"
	switch {
	case runtime.GOOS == "darwin":
		name = "open"
	case runtime.GOOS == "windows":
		name = "explorer"
	case os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "":
		return errors.New("there is no desktop here")
	}
	ctx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	return exec.CommandContext(ctx, name, path).Run()
}
