// SPDX-License-Identifier: Apache-2.0

package memguard

// limitStated is Cgroup.LimitFrom of a limit that the service has stated itself.
const limitStated = "Config.Limit"

// state lets the limit that the service states itself count, where the cgroup's is
// larger. Where the cgroup has none, or there is no cgroup, anybody may be charged
// together with the process: then what is resident of it alone stands in for the
// usage, its program's own pages included, as whoever watches it from outside
// would count.
func (s *Source) state(dst *Sample) {
	c := &dst.Cgroup
	if s.limit == 0 {
		return
	}
	limit, known := c.Limit.Get()
	s.alone = s.group == nil || known && limit == Unlimited
	switch {
	case !known && !s.alone: // it may be smaller: nothing is decided on what is not known
	case !s.alone && limit > s.limit:
		c.Limit, c.LimitFrom = Known(s.limit), limitStated
	case s.alone:
		*c = Cgroup{
			LimitFrom: limitStated, Limit: Known(s.limit), High: Known[uint64](Unlimited),
			Usage: dst.Process.RSS, WorkingSet: dst.Process.RSS, ActiveFile: Known[uint64](0), InactiveFile: Known[uint64](0),
			OOMKills: c.OOMKills, Pressure: c.Pressure,
		}
		if g := s.glance.Load(); s.statm != nil && (g == nil || g.statm == nil) {
			s.glance.Store(&glance{statm: s.statm})
		}
	}
}

// residentNow reads what is resident of the process. It may be called from any
// goroutine at any time.
func (g *glance) residentNow() (uint64, bool) {
	var buf [128]byte
	n, err := readAt(g.statm, buf[:])
	_, rss, _, ok := parseStatm(buf[:n])
	return rss * uint64(pageSize), ok && err == nil
}
