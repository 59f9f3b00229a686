// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"errors"
	"fmt"
	"os/exec"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/scavenge/cgroup"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
)

// place is where a life is lived: a memory cgroup with the limit. Where none may
// be made, the demo watches the resident size and kills in the kernel's place.
type place struct {
	limit    uint64
	enforced string
	box      *sandbox.Sandbox // nil: the demo kills
	group    *cgroup.Group    // of box
}

func newPlace(limit uint64) (*place, error) {
	box, err := sandbox.New("demo", limit)
	switch {
	case errors.Is(err, sandbox.ErrUnsupported):
		return watched(limit, err), nil
	case err != nil:
		return nil, fmt.Errorf("demo: %w", err)
	}
	group, err := cgroup.OpenDir(box.Dir())
	if err != nil {
		return nil, fmt.Errorf("demo: %w", errors.Join(err, box.Close()))
	}
	return &place{limit: limit, box: box, group: group, enforced: fmt.Sprintf("the kernel (memory cgroup v%d)", box.Version())}, nil
}

// watched is a place without a cgroup, for why there is none.
func watched(limit uint64, why error) *place {
	return &place{limit: limit, enforced: fmt.Sprintf("this demo, which watches the resident size (%v)", why)}
}

func (p *place) close() {
	if p.box != nil {
		_ = p.group.Close()
		_ = p.box.Close()
	}
}

// start starts a command under the limit.
func (p *place) start(cmd *exec.Cmd) error {
	if p.box != nil {
		return p.box.Start(cmd)
	}
	return cmd.Start()
}

// used is what counts against the limit now, with a service that runs as the
// process of src.
func (p *place) used(src *memguard.Source) (uint64, bool) {
	if p.box != nil {
		n, err := p.group.Usage()
		return n, err == nil
	}
	var s memguard.Sample
	if src == nil || src.Read(&s) != nil {
		return 0, false
	}
	return s.Process.RSS.Get()
}

// kills is the kernel's own count of processes killed at the limit.
func (p *place) kills() memguard.Count {
	if p.box != nil {
		if n, err := p.box.Kills(); err == nil {
			return memguard.Known(n)
		}
	}
	return memguard.Count{}
}

// peak is the most that was ever charged, as the kernel says.
func (p *place) peak() memguard.Bytes {
	if p.box != nil {
		if n, err := p.box.Peak(); err == nil {
			return memguard.Known(n)
		}
	}
	return memguard.Bytes{}
}
