// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"errors"
	"fmt"
	"time"

	"github.com/memguard/memguard-go/memguard/evidence"
)

// openWait is how long Start waits for the disk that the black box is to be on.
const openWait = time.Second

// opened is the black box, and what was found beside it.
type opened struct {
	box  *evidence.Box
	died []Event
	lost []Blind
}

// openBox makes the black box of this process, after those of its predecessors were
// looked at.
func openBox(dir string) (o opened) {
	var err error
	if o.died, err = Predecessors(dir); err != nil {
		o.lost = append(o.lost, Blind{"predecessor", err.Error()})
	}
	if o.box, err = evidence.OpenBox(evidence.BoxConfig{Dir: dir, Layout: BoxLayout, Bytes: boxBytes}); err != nil {
		o.lost = append(o.lost, Blind{"black box", err.Error()})
	}
	return o
}

// record has the black box opened. A disk that hangs must not keep the service from
// starting: after a second the guard goes on, and the box comes when it comes.
func (g *Guard) record(open func() opened) {
	made := make(chan opened, 1)
	_, err := atMost(openWait, func() (_ struct{}, _ error) {
		defer close(made)
		made <- open()
		return
	})
	switch {
	case err == nil:
		g.locked(func() { g.opened(<-made) })
	case errors.Is(err, errLeft):
		g.locked(func() {
			g.proof.lost("black box", fmt.Errorf("the disk has not answered for %v: the box will be opened when it does, and lack the samples until then", openWait))
		})
		go g.recordLate(made)
	default: // a panic
		g.locked(func() { g.proof.lost("black box", err) })
	}
}

// recordLate waits for a black box that comes late.
func (g *Guard) recordLate(made <-chan opened) {
	o, ok := <-made
	if !ok {
		o.lost = []Blind{{"black box", "it could not be opened"}}
	}
	select {
	case g.finished <- func() { g.opened(o) }:
	case <-g.done:
		if o.box != nil {
			_ = o.box.Close() // or the next process would take this one for dead
		}
	}
}

// opened begins with the black box: what was noted before there was one is in it too.
func (g *Guard) opened(o opened) {
	g.proof.box = o.box
	before, _, _ := g.journal.since(0)
	for i := range before {
		g.proof.event(&before[i])
	}
	for _, b := range o.lost {
		g.note(Event{Kind: Lost, Blind: b})
	}
	for _, e := range o.died {
		g.note(e)
	}
}
