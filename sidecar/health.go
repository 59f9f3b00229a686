// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// livez says that the process answers.
func (s *Sidecar) livez(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "ok")
}

// check is one thing that must be so.
type check struct {
	name string
	err  error
}

// checks are what /readyz asks. Files that turned bad while their old content stays
// in force are among them: somebody should look.
func (s *Sidecar) checks() []check {
	return []check{
		{"config", s.reloads.err()},
		{"watching", s.watching()},
		{"auth", s.control.AuthError()},
		{"web-config", s.web.ReloadError()},
		{"audit-policy", s.policy.ReloadError()},
	}
}

// lateScan is after which age the last look at the process table is too old.
const lateScan = time.Minute

func (s *Sidecar) watching() error {
	switch at := s.watcher.Scanned(); {
	case at.IsZero():
		return fmt.Errorf("no look at the processes yet")
	case time.Since(at) > lateScan:
		return fmt.Errorf("the last look at the processes is %v old", time.Since(at).Round(time.Second))
	}
	return nil
}

// errWithheld stands for reasons, which name files and lines of the configuration.
var errWithheld = errors.New("reason withheld: say who you are")

// readyz says whether all is as configured, in the form of Kubernetes' components:
// with ?verbose, or when something is not, a line for each check.
func (s *Sidecar) readyz(w http.ResponseWriter, r *http.Request) {
	var b strings.Builder
	failed := 0
	tells := s.control.Allows(r) // the reasons
	for _, c := range s.checks() {
		if c.err != nil {
			failed++
			if !tells {
				c.err = errWithheld
			}
			fmt.Fprintf(&b, "[-]%s failed: %v\n", c.name, c.err)
		} else {
			fmt.Fprintf(&b, "[+]%s ok\n", c.name)
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	switch {
	case failed > 0:
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, b.String(), "readyz check failed\n")
	case r.URL.Query().Has("verbose"):
		fmt.Fprint(w, b.String(), "readyz check passed\n")
	default:
		fmt.Fprintln(w, "ok")
	}
}
