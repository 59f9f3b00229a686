// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"github.com/memguard/memguard-go/sidecar/auth"
	"github.com/memguard/memguard-go/sidecar/target"
)

// namespaceName is a label of RFC 1123, as Kubernetes' namespaces are named.
var namespaceName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// maxSocket is how long the path of a unix socket may be, in bytes: sun_path without
// the zero at its end (unix(7)).
const maxSocket = 107

// mostDays is how long files may be kept: a time.Duration has room for 292 years.
const mostDays = 100_000

// check says all that is wrong.
func (c *Config) check() error {
	var wrong []error
	bad := func(where, format string, args ...any) {
		wrong = append(wrong, fmt.Errorf(where+": "+format, args...))
	}
	if !namespaceName.MatchString(c.Namespace) {
		bad("namespace", "%q: want lower-case letters, digits and -, at most 63", c.Namespace)
	}
	if c.StateDir == "" {
		bad("state_dir", "say where state is kept: there is neither $STATE_DIRECTORY nor $XDG_STATE_HOME nor $HOME")
	}
	if c.Interval < 100*time.Millisecond || c.Interval > time.Minute {
		bad("interval", "%v: want 100ms to 1m", c.Interval)
	}
	if c.ExitHold > 10*time.Second {
		bad("exit_hold", "%v: want at most 10s: a restart waits for it", c.ExitHold)
	}
	if len(c.Targets) == 0 {
		bad("targets", "none: name a process by pid, exe, command, cgroup, port or labels")
	} else if _, err := target.NewFinder(c.Targets); err != nil {
		bad("targets", "%w", err)
	}
	if c.Web.Listen != None {
		if _, err := splitListen(c.Web.Listen); err != nil {
			bad("web.listen", "%w", err)
		}
	} else if c.Web.Socket == "" {
		bad("web", "neither listen nor socket: nobody could ask")
	}
	if n := len(c.Web.Socket); n > maxSocket {
		bad("web.socket", "a path of %d bytes: the kernel takes %d at most", n, maxSocket)
	}
	if _, err := auth.NewAuthorizer(c.Auth); err != nil {
		bad("auth", "%w", err)
	}
	if n := c.Writes.PerMinute; !(n > 0) || math.IsInf(n, 0) { // NaN too
		bad("writes.per_minute", "%v: want more than 0; writes.enabled says whether there are any", n)
	}
	if n := c.Writes.Burst; n < 1 {
		bad("writes.burst", "%d: want 1 or more; writes.enabled says whether there are any", n)
	}
	if c.Writes.Enabled && len(c.Auth.Rules) == 0 {
		bad("writes.enabled", "no auth.rules allow any write: add one, or leave writes off")
	}
	if n := c.Audit.MaxSize; n < 1<<16 {
		bad("audit.max_size", "%d bytes: want 64KiB or more", n)
	}
	if n := c.Audit.MaxAgeDays; n < 0 || n > mostDays {
		bad("audit.max_age_days", "%d: want 1 to %d, or 0 for no limit", n, mostDays)
	}
	if n := c.Audit.MaxFiles; n < 1 {
		bad("audit.max_files", "%d: want 1 or more", n)
	}
	if n := c.Incidents.MaxCount; n < 1 {
		bad("incidents.max_count", "%d: want 1 or more", n)
	}
	if n := c.Incidents.MaxSize; n < 1<<20 {
		bad("incidents.max_size", "%d bytes: want 1MiB or more", n)
	}
	for i, h := range c.Webhooks {
		if u, err := url.Parse(h.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			bad(fmt.Sprintf("webhooks[%d].url", i), "%q: want http://host/... or https://host/...", h.URL)
		}
	}
	return errors.Join(wrong...)
}

// splitListen returns the host of a TCP address to listen at.
func splitListen(addr string) (host string, err error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("%q: want host:port, or %s", addr, None)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return "", fmt.Errorf("%q: want a port from 0 to 65535", addr)
	}
	return host, nil
}

// Loopback reports whether only this host, or this pod, reaches the sidecar.
func (c *Config) Loopback() bool {
	if c.Web.Listen == None {
		return true
	}
	host, err := splitListen(c.Web.Listen)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
