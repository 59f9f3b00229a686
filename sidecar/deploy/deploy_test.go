// SPDX-License-Identifier: Apache-2.0

// Package deploy has nothing but files for operators, and the tests that they are
// right.
package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/incident"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// tool is the path of a program that this machine may not have.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed here", name)
	}
	return path
}

// run runs a program that must succeed, and returns what it prints.
func run(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	c := exec.Command(name, args...)
	c.Stdin = strings.NewReader(stdin)
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s %s\n%s", name, strings.Join(args, " "), out)
	return string(out)
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

// rule is one of a rule file.
type rule struct {
	Record, Alert, Expr, For string
	Labels, Annotations      map[string]string
}

func readRules(t *testing.T) (rules []rule) {
	files, err := filepath.Glob("rules/memguard.*s.yaml")
	require.NoError(t, err)
	require.Len(t, files, 2)
	for _, path := range files {
		var f struct{ Groups []struct{ Rules []rule } }
		require.NoError(t, yaml.Unmarshal([]byte(read(t, path)), &f))
		for _, g := range f.Groups {
			rules = append(rules, g.Rules...)
		}
	}
	require.Greater(t, len(rules), 15)
	return rules
}

func TestPromtool(t *testing.T) {
	t.Parallel()
	promtool := tool(t, "promtool")
	run(t, "", promtool, "check", "rules", "rules/memguard.rules.yaml", "rules/memguard.alerts.yaml")
	run(t, "", promtool, "test", "rules", "rules/memguard.test.yaml")
	run(t, "", promtool, "check", "config", "prometheus.yml")
	run(t, read(t, "../metrics/testdata/metrics.txt"), promtool, "check", "metrics")

	// Some builds of Prometheus lack the discovery of pods: the rest of it.
	const pods = "kubernetes_sd_configs:\n      - role: pod\n"
	scrape := read(t, "kubernetes/scrape.yaml")
	require.Contains(t, scrape, pods)
	path := filepath.Join(t.TempDir(), "scrape.yaml")
	require.NoError(t, os.WriteFile(path, []byte(strings.Replace(scrape, pods, "static_configs:\n      - targets: [pod]\n", 1)), 0o600))
	run(t, "", promtool, "check", "config", path)
}

// A test of the rules that cannot fail is none: with an alert's condition turned
// round, its test does.
func TestRuleTestsBite(t *testing.T) {
	t.Parallel()
	promtool := tool(t, "promtool")
	alerts := read(t, "rules/memguard.alerts.yaml")
	for _, r := range readRules(t) {
		if r.Alert == "" {
			continue
		}
		t.Run(r.Alert, func(t *testing.T) {
			t.Parallel()
			head := "- alert: " + r.Alert + "\n"
			i := strings.Index(alerts, head)
			require.Positive(t, i)
			dir := t.TempDir()
			for name, text := range map[string]string{
				"memguard.rules.yaml":  read(t, "rules/memguard.rules.yaml"),
				"memguard.test.yaml":   read(t, "rules/memguard.test.yaml"),
				"memguard.alerts.yaml": alerts[:i] + strings.Replace(alerts[i:], "expr: ", "expr: vector(0) > 1 #", 1),
			} {
				if name == "memguard.alerts.yaml" && strings.Contains(text, "#|\n") { // an expression in the next line
					text = regexp.MustCompile(`#\|\n.*\n`).ReplaceAllString(text, "\n")
				}
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
			}
			out, err := exec.Command(promtool, "test", "rules", filepath.Join(dir, "memguard.test.yaml")).CombinedOutput()
			require.Error(t, err, "nothing misses the alert")
			assert.Contains(t, string(out), "alertname: "+r.Alert)
		})
	}
}

// Every alert leads its reader to a place that is there.
func TestRunbooks(t *testing.T) {
	t.Parallel()
	const home = "https://github.com/memguard/memguard-go/blob/main/"
	anchors := map[string][]string{}
	for _, file := range []string{"docs/findings.md", "sidecar/deploy/README.md"} {
		for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(read(t, "../../"+file), -1) {
			anchors[file] = append(anchors[file], strings.ReplaceAll(strings.ToLower(m[1]), " ", "-"))
		}
	}
	for _, d := range memguard.Docs() { // for alerts of all findings
		assert.Contains(t, anchors["docs/findings.md"], string(d.ID))
	}
	names := map[string]bool{}
	for _, r := range readRules(t) {
		if r.Alert == "" {
			continue
		}
		names[r.Alert] = true
		assert.Contains(t, anchors["sidecar/deploy/README.md"], strings.ToLower(r.Alert))
		assert.NotEmpty(t, r.Annotations["summary"], r.Alert)
		assert.Regexp(t, `\.$`, r.Annotations["description"], r.Alert)
		if r.Labels["severity"] == "" {
			assert.Contains(t, r.Expr, "memguard_target_findings{", "%s: it has the finding's severity", r.Alert)
		}
		url := r.Annotations["runbook_url"]
		file, anchor, ok := strings.Cut(strings.TrimPrefix(url, home), "#")
		require.True(t, ok && strings.HasPrefix(url, home), url)
		if anchor != "{{ $labels.id }}" {
			assert.Contains(t, anchors[file], anchor, url)
		} else {
			assert.Equal(t, "docs/findings.md", file)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^### (.*)$`).FindAllStringSubmatch(read(t, "README.md"), -1) {
		assert.True(t, names[m[1]], "the README explains %s, which there is not", m[1])
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(read(t, "README.md"), -1) {
		assert.FileExists(t, m[1])
	}
}

// The causes of the two alerts of ends are those that the incident reports rank
// so, and all of them.
func TestCauses(t *testing.T) {
	t.Parallel()
	of := map[string][]string{}
	for _, s := range metricSeries(t) {
		if s.name != "memguard_target_incidents_total" || s.labels["target"] != "orders" {
			continue
		}
		cause := s.labels["cause"]
		switch sev := incident.Cause(cause).Severity(); {
		case sev == memguard.Critical:
			of["MemguardOutOfMemory"] = append(of["MemguardOutOfMemory"], cause)
		case sev == memguard.Warning && incident.Cause(cause) != incident.Restarted && incident.Cause(cause) != incident.NotKnown:
			of["MemguardCrashed"] = append(of["MemguardCrashed"], cause)
		}
	}
	found := 0
	for _, r := range readRules(t) {
		m := regexp.MustCompile(`cause=~"([^"]+)"`).FindStringSubmatch(r.Expr)
		if m == nil {
			continue
		}
		found++
		want := of["MemguardOutOfMemory"]
		if r.Alert == "MemguardCrashed" {
			want = of["MemguardCrashed"]
		}
		assert.ElementsMatch(t, want, strings.Split(m[1], "|"), r.Alert+r.Record)
	}
	assert.Equal(t, 3, found)
}

// sample is one series of an exposition.
type sample struct {
	name   string
	labels map[string]string
}

var label = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"([^"]*)"`)

// metricSeries are all series that a sidecar can have.
func metricSeries(t *testing.T) (all []sample) {
	for line := range strings.Lines(read(t, "../metrics/testdata/metrics.txt") + auditMetrics(t)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, rest, _ := strings.Cut(line[:strings.LastIndex(line, " ")], "{")
		s := sample{name, map[string]string{"job": "memguard", "instance": "localhost:9779"}}
		for _, m := range label.FindAllStringSubmatch(rest, -1) {
			s.labels[m[1]] = m[3]
		}
		all = append(all, s)
	}
	require.Greater(t, len(all), 200)
	return all
}

// matches reports whether one of the series is selected by the matchers.
func matches(t *testing.T, all []sample, name, matchers string) bool {
	return slices.ContainsFunc(all, func(s sample) bool {
		if s.name != name {
			return false
		}
		for _, m := range label.FindAllStringSubmatch(matchers, -1) {
			pattern := m[3]
			if m[2] == "=" || m[2] == "!=" {
				pattern = regexp.QuoteMeta(pattern)
			}
			re, err := regexp.Compile("^(?:" + pattern + ")$")
			require.NoError(t, err)
			v, ok := s.labels[m[1]]
			if !ok || re.MatchString(v) == strings.HasPrefix(m[2], "!") {
				return false
			}
		}
		return true
	})
}

// selector is a metric of ours, or of the sidecar's own, in an expression.
var selector = regexp.MustCompile(`\b((?:memguard_|process_|promhttp_|target:|target_row:)[a-zA-Z0-9_:]*|up\b)\s*(\{[^}]*\})?`)

// Every expression is one that Prometheus understands, and selects series that
// there are.
func TestExpressions(t *testing.T) {
	t.Parallel()
	all := metricSeries(t)
	exprs := dashboardExpressions(t)
	recorded := map[string]bool{}
	for _, r := range readRules(t) {
		exprs[r.Alert+r.Record] = r.Expr
		recorded[r.Record] = true
	}
	own := map[string]bool{ // of client_golang and of Prometheus
		"up": true, "process_resident_memory_bytes": true, "process_cpu_seconds_total": true, "promhttp_metric_handler_errors_total": true,
	}
	used := map[string]bool{}
	for where, expr := range exprs {
		found := selector.FindAllStringSubmatch(expr, -1)
		assert.NotEmpty(t, found, "%s: %s", where, expr)
		for _, m := range found {
			used[m[1]] = true
			if !recorded[m[1]] && !own[m[1]] {
				assert.True(t, matches(t, all, m[1], m[2]), "%s: no series is %s%s", where, m[1], m[2])
			}
		}
	}
	for _, s := range all { // and nothing is there to be looked at by nobody
		switch s.name {
		case "memguard_target_eye", "memguard_target_start_time_seconds", "memguard_config_last_reload_success_timestamp_seconds", "memguard_audit_level_total":
		default:
			assert.True(t, used[s.name], "%s is in no rule and in no panel", s.name)
		}
	}
	for name := range recorded {
		assert.True(t, name == "" || used[name], "%s is recorded for nobody", name)
	}

	promtool := tool(t, "promtool")
	var rules []map[string]string
	for _, expr := range exprs {
		rules = append(rules, map[string]string{"record": fmt.Sprintf("test:expression:%d", len(rules)), "expr": expr})
	}
	b, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "rules.yaml")
	require.NoError(t, os.WriteFile(path, b, 0o600))
	run(t, "", promtool, "check", "rules", path)
}

// panel is one of a dashboard.
type panel struct {
	ID          int
	Type, Title string
	GridPos     struct{ X, Y, W, H int }
	Datasource  struct{ Type, UID string }
	Targets     []struct {
		RefID, Expr string
		Datasource  struct{ Type, UID string }
	}
}

type dashboard struct {
	UID, Title string
	Panels     []panel
	Templating struct {
		List []struct {
			Name, Type string
			Query      any
		}
	}
	Annotations struct{ List []struct{ Name, Expr string } }
}

func readDashboard(t *testing.T) (d dashboard) {
	require.NoError(t, json.Unmarshal([]byte(read(t, "grafana/memguard.json")), &d))
	return d
}

// dashboardExpressions are all that the dashboard asks Prometheus, with its
// variables set to everything.
func dashboardExpressions(t *testing.T) map[string]string {
	d := readDashboard(t)
	exprs := map[string]string{}
	vars := strings.NewReplacer("$__rate_interval", "1m", "$job", ".*", "$instance", ".*", "$target", ".*")
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			exprs[p.Title+" "+target.RefID] = vars.Replace(target.Expr)
		}
	}
	for _, a := range d.Annotations.List {
		exprs["annotation "+a.Name] = vars.Replace(a.Expr)
	}
	for _, v := range d.Templating.List {
		if q, ok := v.Query.(map[string]any); ok {
			m := regexp.MustCompile(`^label_values\((.*), \w+\)$`).FindStringSubmatch(q["query"].(string))
			require.NotNil(t, m, "%v", q)
			exprs["variable "+v.Name] = vars.Replace(m[1])
		}
	}
	for where, expr := range exprs {
		require.NotContains(t, expr, "$", where)
	}
	require.Greater(t, len(exprs), 40)
	return exprs
}

func TestDashboard(t *testing.T) {
	t.Parallel()
	d := readDashboard(t)
	assert.Equal(t, "memguard", d.UID)
	ids := map[int]bool{}
	var taken [24][200]int
	for _, p := range d.Panels {
		assert.NotEmpty(t, p.Title)
		assert.False(t, ids[p.ID], "%s: %d is there twice", p.Title, p.ID)
		ids[p.ID] = true
		g := p.GridPos
		require.LessOrEqual(t, g.X+g.W, 24, p.Title)
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				assert.Zero(t, taken[x][y], "%s lies on panel %d", p.Title, taken[x][y])
				taken[x][y] = p.ID
			}
		}
		if p.Type == "row" {
			continue
		}
		require.NotEmpty(t, p.Targets, p.Title)
		refs := map[string]bool{}
		assert.Equal(t, "${datasource}", p.Datasource.UID, p.Title)
		for _, target := range p.Targets {
			assert.Equal(t, "${datasource}", target.Datasource.UID, p.Title)
			assert.False(t, refs[target.RefID], "%s: %s is there twice", p.Title, target.RefID)
			refs[target.RefID] = true
		}
	}
	require.Equal(t, "datasource", d.Templating.List[0].Name)
}
