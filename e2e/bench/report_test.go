package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRatiosAreOfPairedRounds(t *testing.T) {
	// The second pair ran on a slow moment of the machine: pairing keeps it out of the ratio.
	floor, collage := []float64{1, 10, 2}, []float64{2, 20, 4}
	if ratio := median(ratios(floor, collage)); ratio != 0.5 {
		t.Errorf("ratio %v, expected 0.5", ratio)
	}
	if m := median([]float64{4, 1, 3, 2}); m != 2.5 {
		t.Errorf("median of an even number: %v, expected 2.5", m)
	}
	// A round without its partner (the run was cut short) makes no pair.
	if paired := ratios([]float64{1}, []float64{2, 4}); len(paired) != 1 {
		t.Errorf("pairs %v, expected one", paired)
	}
}

func TestPercentilesAreValuesThatWereSeen(t *testing.T) {
	var hundred []float64
	for i := 100; i >= 1; i-- {
		hundred = append(hundred, float64(i))
	}
	for _, c := range []struct {
		values            []float64
		percent, expected float64
	}{
		{hundred, 50, 50}, {hundred, 99, 99}, {hundred, 100, 100}, {hundred, 0, 1},
		{[]float64{7}, 50, 7}, {[]float64{7}, 99, 7}, {[]float64{3, 1, 2}, 50, 2}, {[]float64{3, 1, 2}, 99, 3},
	} {
		if got := percentile(c.values, c.percent); got != c.expected {
			t.Errorf("p%v of %d values: %v, expected %v", c.percent, len(c.values), got, c.expected)
		}
	}
	if hundred[0] != 100 {
		t.Error("the values were sorted in place")
	}
}

// measuredRun is a run whose attach rate misses its goal, and nothing else.
func measuredRun() *results {
	r := newResults(&options{phases: phaseNames, rounds: 3, claims: 100, attaches: 100, turns: 2})
	add := func(who candidate, phase string, round int, seconds float64, writes tally) {
		for range 2 { // turns, each with half of it
			r.add(who, phase, round, measurement{took: time.Duration(seconds * float64(time.Second) / 2), count: 50, writes: writes,
				processor: 100 * time.Millisecond, shared: map[string]time.Duration{apiServer: time.Second / 2}})
		}
	}
	for _, phase := range rates {
		for i, slow := range []float64{1, 2, 1.5} {
			share := 0.9
			if phase == "attach" {
				share = 0.5
			}
			add(floor, phase, i+1, slow, tally{"POST x": 50})
			add(collage, phase, i+1, slow/share, tally{"POST x": 50, "PATCH storagenodes/status": 10})
		}
	}
	for i := range 200 {
		r.latencies[collage.name] = append(r.latencies[collage.name], float64(100+i))
		r.latencies[floor.name] = append(r.latencies[floor.name], float64(20+i))
	}
	for key, value := range map[string]float64{"idle_writes": 0, "node_rss_mib": 27.9, "node_anon_mib": 10, "operator_rss_mib_10k": 59,
		"operator_hwm_mib_10k": 80, "restart_seconds_10k": 4.5, "scale_objects": 10000, "node_staged_volumes": 50} {
		r.set(key, value)
	}
	r.machine = map[string]any{"date": "2026-01-02T03:04:05Z", "machine_cores": 2.0, "machine_kernel": "6.1<&>"}
	return &r
}

func TestFlatResultsHoldEveryGoal(t *testing.T) {
	flat := measuredRun().flat()
	for _, g := range goals {
		if _, ok := figure(flat, g.key); !ok {
			t.Errorf("%s is missing", g.key)
		}
	}
	for key, expected := range map[string]float64{"provision_ratio_to_floor": 0.9, "attach_ratio_to_floor": 0.5, "provision_writes": 1.2,
		"provision_writes_direct": 1, "provision_writes_through_nodes": 0.2, "provision_floor_writes": 1, "rounds": 3,
		"latency_p50_ms": 199, "latency_p99_ms": 297, "latency_p99_ms_above_floor": 80, "provision_floor_per_second": 66.667,
		"provision_apiserver_ms": 10, "provision_processor_ms": 2} {
		if value, _ := figure(flat, key); value != expected {
			t.Errorf("%s is %v, expected %v", key, value, expected)
		}
	}
}

func TestGoalsAreJudgedAtTheirLimits(t *testing.T) {
	verdicts := judge(measuredRun().flat(), phaseNames)
	if len(verdicts) != len(goals) {
		t.Fatalf("%d verdicts on %d goals", len(verdicts), len(goals))
	}
	if missed := missedGoals(verdicts); !slices.Equal(missed, []string{"attach_ratio_to_floor"}) {
		t.Errorf("missed %v", missed)
	}
	above := goal{key: "x", limit: 5}
	for _, c := range []struct {
		v    verdict
		pass bool
	}{
		{verdict{above, 5, true}, true}, {verdict{above, 5.001, true}, false}, {verdict{above, 0, false}, false},
		{verdict{goal{limit: 0.85, atLeast: true}, 0.85, true}, true}, {verdict{goal{limit: 0.85, atLeast: true}, 0.849, true}, false},
		{verdict{goal{limit: 0}, 0, true}, true}, {verdict{goal{limit: 0}, 1, true}, false},
	} {
		if c.v.pass() != c.pass {
			t.Errorf("%+v: pass is %v", c.v, c.v.pass())
		}
	}
	// A phase that was to run and measured nothing fails its goals; one that was not chosen has none.
	if missed := missedGoals(judge(map[string]any{}, phaseList{"idle"})); !slices.Equal(missed, []string{"idle_writes"}) {
		t.Errorf("missed %v", missed)
	}
}

func TestResultsAreWrittenFlatWithLimits(t *testing.T) {
	folder := t.TempDir()
	flat := measuredRun().flat()
	verdicts := judge(flat, phaseNames)
	if err := writeResults(folder, flat, verdicts, []byte("<svg/>")); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(folder, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if err := json.Unmarshal(content, &all); err != nil {
		t.Fatal(err)
	}
	for key, value := range all {
		switch value.(type) {
		case float64, string, bool:
		default:
			t.Errorf("%s is not flat: %v", key, value)
		}
	}
	for key, expected := range map[string]any{"attach_ratio_to_floor_pass": false, "attach_ratio_to_floor_limit": 0.85, "idle_writes_pass": true,
		"idle_writes": 0.0, "goals_reached": float64(len(goals) - 1), "goals": float64(len(goals)), "machine_cores": 2.0} {
		if all[key] != expected {
			t.Errorf("%s is %v, expected %v", key, all[key], expected)
		}
	}
}

func TestThePlotIsWellFormedAndShowsWhatIsMissed(t *testing.T) {
	run := measuredRun()
	flat := run.flat()
	plot := plotSVG(flat, judge(flat, phaseNames), run.latencies)
	classes := elements(t, plot)
	// Four rates, four sizes, the legend's two; one of the rates is missed.
	if classes["rect ours"] != 8 || classes["rect missed"] != 1 || classes["rect floor"] != 1 {
		t.Errorf("bars %v", classes)
	}
	if classes["line whisker"] != 12 || classes["line limit"] != 5 || classes["polyline curve ours"] != 1 || classes["polyline curve floor"] != 1 {
		t.Errorf("lines %v", classes)
	}
	for _, expected := range []string{"prefers-color-scheme: dark", "0.85", ">0.50<", "6.1&lt;&amp;&gt;", "10000 claims"} {
		if !strings.Contains(string(plot), expected) {
			t.Errorf("%q is not in the plot", expected)
		}
	}
	if bytes.Contains(plot, []byte("NaN")) {
		t.Error("there are places that are no number")
	}
}

func TestAPlotOfNothingSaysSo(t *testing.T) {
	plot := plotSVG(map[string]any{}, judge(map[string]any{}, phaseNames), nil)
	elements(t, plot)
	if count := strings.Count(string(plot), "not measured"); count != 9 {
		t.Errorf("says %d times that it was not measured, expected 9", count)
	}
}

func elements(t *testing.T, plot []byte) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for decoder := xml.NewDecoder(bytes.NewReader(plot)); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return seen
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, plot)
		}
		if element, ok := token.(xml.StartElement); ok {
			for _, attribute := range element.Attr {
				if attribute.Name.Local == "class" {
					seen[element.Name.Local+" "+attribute.Value]++
				}
			}
		}
	}
}

func TestTicksAreRoundAndCoverTheValue(t *testing.T) {
	for value, expected := range map[float64][]float64{1: {0, 0.2, 0.4, 0.6, 0.8, 1}, 1.02: {0, 0.2, 0.4, 0.6, 0.8, 1, 1.2},
		80: {0, 20, 40, 60, 80}, 450: {0, 100, 200, 300, 400, 500}, 0: {0, 1}} {
		if ticks := niceTicks(value); !slices.Equal(ticks, expected) {
			t.Errorf("%v: %v, expected %v", value, ticks, expected)
		}
	}
}

func TestDocsGetTheResultsBetweenTheirLines(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "benchmarks.md")
	page := "# Benchmarks\n" + resultsBegin + "\nold\n" + resultsEnd + "\nafter\n"
	if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	flat := measuredRun().flat()
	verdicts := judge(flat, phaseNames)
	for range 2 { // again and again
		if err := writeDocs(folder, flat, verdicts, []byte("<svg/>")); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	written := string(content)
	if strings.Contains(written, "old") || !strings.HasPrefix(written, "# Benchmarks\n"+resultsBegin) || !strings.HasSuffix(written, resultsEnd+"\nafter\n") {
		t.Errorf("page:\n%s", written)
	}
	for _, expected := range []string{"| `attach_ratio_to_floor` |", "| 0.5 | ≥ 0.85 | **missed** |", "| `idle_writes` |", "benchmarks.svg"} {
		if strings.Count(written, expected) != 1 {
			t.Errorf("%q is not there once:\n%s", expected, written)
		}
	}
	if _, err := withResults([]byte("no lines"), nil); err == nil {
		t.Error("a page without the lines was taken")
	}
}

func TestPhasesAreChosenByName(t *testing.T) {
	var l phaseList
	if err := l.Set("delete, latency"); err != nil || !l.wants("latency") || l.wants("idle", "attach") {
		t.Errorf("%v, %v", l, err)
	}
	for _, text := range []string{"", "provison", ","} {
		if l.Set(text) == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
