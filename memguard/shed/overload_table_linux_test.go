// SPDX-License-Identifier: Apache-2.0

package shed_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// tableEnv makes TestProcessOverloadTable search the best fixed limit, which takes
// seven minutes for each repetition. Its value is how many there are.
const tableEnv = "MEMGUARD_SHED_TABLE"

// The limiter against fixed limits of work in flight, with three times as many
// connections, all with the same memory limit in the runtime; they run in turn. A
// fixed limit is chosen once for all loads: the best is the one with the most answers
// of those under which the service was never killed.
func TestProcessOverloadTable(t *testing.T) {
	times, err := strconv.Atoi(os.Getenv(tableEnv))
	if err != nil {
		t.Skipf("takes long: set %s to how often each is to run", tableEnv)
	}
	victims := []part{{Limit: 128 * mib}}
	for _, n := range []int{70, 80, 90, 100} {
		victims = append(victims, part{Limit: 128 * mib, Semaphore: n, Connections: 3 * n})
	}
	answered, killed := make([][]int64, len(victims)), make([]int, len(victims)) // median by load; in all
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "requests/s\tconnections\t")
	for _, v := range victims {
		fmt.Fprintf(w, "%s\t", v.title())
	}
	fmt.Fprintln(w)
	for _, keepAlive := range []bool{true, false} {
		for _, rate := range []float64{1200, 1800, 3000, 4000} { // 2, 3, 5 and 7 times what fits
			got, dead := make([][]int64, len(victims)), make([]int, len(victims))
			for range times {
				for i, v := range victims {
					a, alive := overload(t, v, part{Rate: rate, KeepAlive: keepAlive, Duration: 8 * time.Second})
					got[i] = append(got[i], a.OK)
					if !alive {
						dead[i]++
					}
					t.Logf("%.0f requests/s, keep-alive %v, %s: alive %v, %+v", rate, keepAlive, v.title(), alive, a)
				}
			}
			how := "new"
			if keepAlive {
				how = "kept"
			}
			fmt.Fprintf(w, "%.0f\t%s\t", rate, how)
			for i := range victims {
				slices.Sort(got[i])
				answered[i] = append(answered[i], got[i][times/2])
				killed[i] += dead[i]
				fmt.Fprintf(w, "%d", answered[i][len(answered[i])-1])
				if dead[i] > 0 {
					fmt.Fprintf(w, " killed %d of %d", dead[i], times)
				}
				fmt.Fprint(w, "\t")
			}
			fmt.Fprintln(w)
		}
	}
	w.Flush()
	best, most := 0, int64(0)
	for i := 1; i < len(victims); i++ {
		all := int64(0)
		for _, n := range answered[i] {
			all += n
		}
		if killed[i] == 0 && all > most {
			best, most = i, all
		}
	}
	fmt.Fprintf(&out, "limiter: killed %d times.", killed[0])
	if best > 0 {
		fmt.Fprintf(&out, " To %s, the best that was never killed:", victims[best].title())
		for i := range answered[0] {
			fmt.Fprintf(&out, " %.2f", float64(answered[0][i])/float64(answered[best][i]))
		}
	}
	t.Logf("answers in 8 s, medians of %d\n%s", times, &out)
}

// title is what limits a victim.
func (p *part) title() string {
	if p.Semaphore == 0 {
		return "limiter"
	}
	return fmt.Sprintf("%d in flight", p.Semaphore)
}
