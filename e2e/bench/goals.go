package main

import (
	"fmt"
	"io"
	"strings"
)

// goal is what a measurement must reach.
type goal struct {
	phase   string // that measures it
	key     string // in results.json
	limit   float64
	atLeast bool // else at most
	what    string
}

// goals are all of them. Writes are those that are Collage's own; what goes through StorageNodes has a budget of its own.
var goals = []goal{
	{"provision", "provision_ratio_to_floor", 0.85, true, "claims to Bound, rate of the floor's"},
	{"delete", "delete_ratio_to_floor", 0.85, true, "volumes deleted, rate of the floor's"},
	{"attach", "attach_ratio_to_floor", 0.85, true, "attaches, rate of the floor's"},
	{"detach", "detach_ratio_to_floor", 0.85, true, "detaches, rate of the floor's"},
	{"provision", "provision_writes_direct", 1.3, false, "writes a claim"},
	{"delete", "delete_writes_direct", 2.1, false, "writes a deletion"},
	{"attach", "attach_writes_direct", 2.1, false, "writes an attach"},
	{"detach", "detach_writes_direct", 2, false, "writes a detach"},
	{"provision", "provision_writes_through_nodes", 0.5, false, "more a claim through StorageNodes"},
	{"delete", "delete_writes_through_nodes", 0.5, false, "more a deletion through StorageNodes"},
	{"attach", "attach_writes_through_nodes", 0.5, false, "more an attach through StorageNodes"},
	{"detach", "detach_writes_through_nodes", 0.5, false, "more a detach through StorageNodes"},
	{"latency", "latency_p50_ms_above_floor", 150, false, "ms above the floor, median claim"},
	{"latency", "latency_p99_ms_above_floor", 500, false, "ms above the floor, 99 of 100 claims"},
	{"idle", "idle_writes", 0, false, "writes in idle minutes beside the Lease"},
	{"node", "node_rss_mib", 28, false, "MiB resident, node agent"},
	{"node", "node_anon_mib", 10, false, "MiB of it anonymous"},
	{"scale", "operator_rss_mib_10k", 60, false, "MiB resident, operator with all objects"},
	{"scale", "operator_hwm_mib_10k", 80, false, "MiB at its peak"},
	{"scale", "restart_seconds_10k", 5, false, "s from its start until a new claim is Bound"},
}

// verdict is a goal with what was measured.
type verdict struct {
	goal
	value    float64
	measured bool
}

func (v verdict) pass() bool {
	if v.atLeast {
		return v.measured && v.value >= v.limit
	}
	return v.measured && v.value <= v.limit
}

// judge holds the results against the goals of the phases that were to run. What was not measured has failed.
func judge(flat map[string]any, phases phaseList) []verdict {
	var all []verdict
	for _, g := range goals {
		if !phases.wants(g.phase) {
			continue
		}
		value, measured := flat[g.key].(float64)
		all = append(all, verdict{g, value, measured})
	}
	return all
}

func missedGoals(verdicts []verdict) []string {
	var missed []string
	for _, v := range verdicts {
		if !v.pass() {
			missed = append(missed, v.key)
		}
	}
	return missed
}

func (v verdict) columns() (value, limit, result string) {
	sign, result := "<=", "pass"
	if v.atLeast {
		sign = ">="
	}
	if !v.pass() {
		result = "FAIL"
	}
	value = "not measured"
	if v.measured {
		value = number(v.value)
	}
	return value, sign + " " + number(v.limit), result
}

// number prints three digits at least, and no zeros after the point that say nothing.
func number(value float64) string {
	text := fmt.Sprintf("%.2f", value)
	if value >= 100 || value <= -100 {
		text = fmt.Sprintf("%.0f", value)
	}
	if strings.Contains(text, ".") {
		text = strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	}
	return text
}

func printGoals(out io.Writer, verdicts []verdict) {
	fmt.Fprintf(out, "\n%-32s %12s %9s  %-5s\n", "goal", "measured", "limit", "")
	for _, v := range verdicts {
		value, limit, result := v.columns()
		fmt.Fprintf(out, "%-32s %12s %9s  %-5s %s\n", v.key, value, limit, result, v.what)
	}
	missed := missedGoals(verdicts)
	fmt.Fprintf(out, "\n%d of %d goals reached\n", len(verdicts)-len(missed), len(verdicts))
}
