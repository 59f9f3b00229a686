// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"errors"
	"io"
	"reflect"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
)

// joined is the agent in the process, if it serves one.
type joined struct {
	client *agent.Client // nil: none answers
	status *agent.Status // its last answer
	at     time.Time     // when that came
	asking bool
	next   time.Time // when it is asked or looked for again
	wait   time.Duration
	seq    uint64 // of its last event that was heard
	fails  int    // in a row
}

const (
	dialFirst  = 300 * time.Millisecond // after a life's beginning; a guard needs a tenth of a second
	dialAgain  = time.Second            // three times as long with each failure
	dialRest   = time.Minute
	askFor     = 3 * time.Second
	askFails   = 2               // until it is looked for anew
	agentHangs = 5 * time.Second // its guard ticks once a second
	oldEvents  = 32              // that are heard of one that is new
	mostItems  = 256             // in each list of an answer
)

// answers reports whether its last answer is of now.
func (j *joined) answers(now time.Time, interval time.Duration) bool {
	return j.client != nil && j.status != nil && now.Sub(j.at) < 3*interval+askFor
}

func (j *joined) close() {
	if j.client != nil {
		j.client.Close()
	}
}

// join asks the agent, or looks for one, aside when it is time.
func (l *life) join(now time.Time) {
	if l.notGo {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	j := &l.agent
	if j.next.IsZero() {
		j.next = l.begun.Add(dialFirst)
	}
	if j.asking || now.Before(j.next) {
		return
	}
	j.asking = true
	go l.ask(j.client, j.seq)
}

// ask asks the agent, nil if there is none yet.
func (l *life) ask(c *agent.Client, seq uint64) {
	var st *agent.Status
	var es []memguard.Event
	leave, err := enter(l.ctx, l.w.asks, 4*askFor)
	if err == nil {
		defer leave()
		ctx, done := context.WithTimeout(l.ctx, askFor)
		defer done()
		if c == nil {
			c, err = agent.Dial(l.PID)
		}
		if err == nil {
			st, err = c.Status(ctx)
		}
		if err == nil && st.Events > seq {
			if es, err = c.Events(ctx, seq, 0); errors.Is(err, io.EOF) {
				err = errors.New("its guard has ended")
			}
		}
	}
	l.answered(c, st, es, err)
}

// answered takes in what an agent said.
func (l *life) answered(c *agent.Client, st *agent.Status, es []memguard.Event, err error) {
	now := time.Now()
	if err == nil && st.Age > agentHangs.Seconds() {
		err = errors.New("its guard hangs: its last tick was " + time.Duration(st.Age*float64(time.Second)).Round(time.Second).String() + " ago")
	}
	state, why := OK, ""
	l.mu.Lock()
	j := &l.agent
	isNew := j.client == nil
	j.asking = false
	switch {
	case l.ctx.Err() != nil:
		if isNew && c != nil {
			c.Close()
		}
		l.mu.Unlock()
		return
	case err == nil:
		bound(reflect.ValueOf(st))
		j.client, j.status, j.at, j.fails, j.wait = c, st, now, 0, 0
		j.next = now.Add(l.w.cfg.Interval * 15 / 16) // the looks are on a grid
		if isNew {
			es = es[max(len(es)-oldEvents, 0):]
		}
		for i := range es[:min(len(es), mostItems)] {
			e := &es[i]
			bound(reflect.ValueOf(e))
			l.heard(*e)
		}
		j.seq = max(j.seq, st.Events)
		l.standing = map[memguard.ID]memguard.Finding{}
		l.paced(st.Ledger, st.Undroppable, now, 0)
	default:
		state, why = Failed, err.Error()
		if errors.Is(err, agent.ErrNone) {
			state = Off
		}
		if j.fails++; isNew || j.fails >= askFails || errors.Is(err, memguard.ErrGone) {
			if c != nil {
				c.Close()
			}
			j.client, j.status, j.seq = nil, nil, 0
			if !isNew {
				j.wait = 0
			}
		}
		j.wait = min(max(3*j.wait, dialAgain), dialRest)
		j.next = now.Add(j.wait)
		l.outside = time.Time{} // look from here
	}
	l.mu.Unlock()
	if errors.Is(err, memguard.ErrGone) {
		nudge(l.alarm)
	}
	l.set(srcAgent, state, why)
}

// bound cuts what a process says of itself to a size that it cannot choose: texts
// and lists, wherever they are in an answer.
func bound(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			bound(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() {
				bound(f)
			}
		}
	case reflect.Slice:
		if v.Len() > mostItems {
			v.SetLen(mostItems)
		}
		for i := range v.Len() {
			bound(v.Index(i))
		}
	case reflect.String:
		if s := v.String(); len(s) > mostText {
			v.SetString(bounded(s))
		}
	}
}
