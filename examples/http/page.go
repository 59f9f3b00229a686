// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"time"

	"github.com/memguard/memguard-go/memguard"
)

// page shows people what the guard knows and does: where the memory is, what is
// wrong, and which work is let in. It asks the guard for what it knows already,
// and looks at nothing anew.
func page(g *memguard.Guard) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		status, ok := g.StatusWithin(time.Second)
		if !ok {
			http.Error(w, fmt.Sprintf("the guard hangs: its last tick was %v ago", g.Alive()), http.StatusServiceUnavailable)
			return
		}
		var b bytes.Buffer // whole, or not at all
		if err := pageTemplate.Execute(&b, status); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(b.Bytes())
	}
}

// size is a figure of bytes for people. Unknown is not zero.
func size(v any) string {
	n, ok := 0.0, true
	switch v := v.(type) {
	case memguard.Bytes:
		var u uint64
		u, ok = v.Get()
		n = float64(u)
	case memguard.Value[int64]:
		var i int64
		i, ok = v.Get()
		n = float64(i)
	case int64:
		n = float64(v)
	case uint64:
		n = float64(v)
	}
	switch {
	case !ok:
		return "unknown"
	case n >= math.MaxInt64: // of a limit
		return "none"
	}
	return fmt.Sprintf("%.1f MiB", n/(1<<20))
}

func left(v memguard.Value[float64]) string {
	if s, ok := v.Get(); ok {
		return "the limit is reached in " + time.Duration(s*float64(time.Second)).Round(time.Second).String()
	}
	return "nothing grows towards the limit"
}

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{"size": size, "left": left}).Parse(`<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="2">
<title>Memory of thumbnails</title>
<style>
:root { color-scheme: light dark }
body { font: 16px/1.4 system-ui, sans-serif; max-width: 60rem; margin: 1rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .2rem .5rem .2rem 0; border-bottom: 1px solid #8886; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
</style>
<h1>Memory of thumbnails</h1>
<p>{{.Sample.Time.Format "15:04:05"}}, tick {{.Ticks}}: {{left .Left}}.
{{if .DryRun}}The guard only plans.{{end}}</p>

<h2>Findings</h2>
{{if .Findings}}<table>
<tr><th>severity<th>finding<th>what to do</tr>
{{range .Findings}}<tr><td>{{.Severity}}<td><b>{{.ID}}</b>: {{.Summary}}<td>{{.Remedy}}</tr>
{{end}}</table>{{else}}<p>None.</p>{{end}}

<h2>Sample</h2>
<table>
<tr><td>resident<td class="n">{{size .Sample.Process.RSS}}</tr>
<tr><td>charged to the cgroup<td class="n">{{size .Sample.Cgroup.Usage}}</tr>
<tr><td>of that, what cannot be dropped<td class="n">{{size .Undroppable}}</tr>
<tr><td>limit of the cgroup<td class="n">{{size .Sample.Cgroup.Limit}}</tr>
<tr><td>live heap at the last collection<td class="n">{{size .Sample.Runtime.Live}}</tr>
<tr><td>Go memory limit, as the guard wants it<td class="n">{{size .Wanted.MemoryLimit}}</tr>
<tr><td>GC percent, as the guard wants it<td class="n">{{.Wanted.GCPercent}}</tr>
</table>

<h2>Ledger</h2>
<table>
{{range .Ledger.Rows}}<tr><td>{{.Name}}<td class="n">{{size .Bytes}}</tr>
{{end}}<tr><td>residual<td class="n">{{size .Ledger.Residual}}</tr>
</table>

{{with .Shed}}<h2>Work</h2>
<p>{{if .Braking}}The usage is at the limit: only probes are let in.
{{else if .Limited}}{{size .Held}} of {{size .Budget}} are held by work in flight.
{{else}}There is no limit: all work is let in.{{end}}
{{if .Refusing}}By order {{.Refusing}} % of it is refused.{{end}}</p>
<table>
<tr><th>route<th class="n">a unit holds<th class="n">in flight<th class="n">admitted<th class="n">refused</tr>
{{range .Routes}}<tr><td>{{.Route}}<td class="n">{{if .Learned}}{{size .Cost}}{{else}}not known yet{{end}}<td class="n">{{.InFlight}}<td class="n">{{.Admitted}}<td class="n">{{.Refused}}</tr>
{{end}}</table>{{end}}
</html>
`))
