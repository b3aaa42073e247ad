package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// measurement is one phase of one round.
type measurement struct {
	took      time.Duration
	count     float64 // of operations
	writes    tally
	processor time.Duration            // of the candidate
	shared    map[string]time.Duration // of the control plane's components meanwhile
}

// results collects every measurement of a run.
type results struct {
	options   *options
	machine   map[string]any
	rounds    map[string]map[string][]measurement // by candidate and phase
	latencies map[string][]float64                // milliseconds, by candidate
	values    map[string]float64                  // all else
}

func newResults(o *options) results {
	return results{options: o, machine: map[string]any{}, latencies: map[string][]float64{}, values: map[string]float64{},
		rounds: map[string]map[string][]measurement{collage.name: {}, floor.name: {}}}
}

// add counts what a phase did in this round, numbered from 1: a phase that comes again in it is added up.
func (r *results) add(who candidate, phase string, round int, m measurement) {
	rounds := r.rounds[who.name][phase]
	if len(rounds) < round {
		r.rounds[who.name][phase] = append(rounds, m)
		return
	}
	rounds[round-1].include(m)
}

func (m *measurement) include(other measurement) {
	m.took += other.took
	m.count += other.count
	m.writes = m.writes.plus(other.writes)
	m.processor += other.processor
	for name, used := range other.shared {
		m.shared[name] += used
	}
}

func (r *results) set(key string, value float64) { r.values[key] = value }

// raise keeps the largest value.
func (r *results) raise(key string, value float64) { r.values[key] = max(r.values[key], value) }

func (r *results) seconds(who candidate, phase string) []float64 {
	var all []float64
	for _, m := range r.rounds[who.name][phase] {
		all = append(all, m.took.Seconds())
	}
	return all
}

// rate is the median of operations a second.
func (r *results) rate(who candidate, phase string) float64 {
	return r.rounds[who.name][phase][0].count / median(r.seconds(who, phase))
}

// writes of one operation, the mean of all rounds.
func (r *results) writes(who candidate, phase string) tally {
	each, count := tally{}, 0.0
	for _, m := range r.rounds[who.name][phase] {
		count += m.count
	}
	for _, m := range r.rounds[who.name][phase] {
		for key, value := range m.writes {
			each[key] += value / count
		}
	}
	return each
}

// processor is the median of milliseconds of processor time for one operation: the candidate's and the components'.
func (r *results) processor(who candidate, phase string) (own float64, shared map[string]float64) {
	var all []float64
	components := map[string][]float64{}
	for _, m := range r.rounds[who.name][phase] {
		all = append(all, m.processor.Seconds()*1000/m.count)
		for name, used := range m.shared {
			components[name] = append(components[name], used.Seconds()*1000/m.count)
		}
	}
	shared = map[string]float64{}
	for name, values := range components {
		shared[name] = median(values)
	}
	return median(all), shared
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// percentile is the smallest value that so many of a hundred do not exceed (the nearest rank).
func percentile(values []float64, percent float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	rank := int(math.Ceil(percent / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// ratios of paired rounds: 1 is as quick as the floor, 0.5 takes twice as long.
func ratios(floorSeconds, collageSeconds []float64) []float64 {
	paired := make([]float64, min(len(floorSeconds), len(collageSeconds)))
	for i := range paired {
		paired[i] = floorSeconds[i] / collageSeconds[i]
	}
	return paired
}

func (r *results) ratios(phase string) []float64 {
	return ratios(r.seconds(floor, phase), r.seconds(collage, phase))
}

// measured are the rates of which there is at least one pair.
func (r *results) measured() []string {
	var all []string
	for _, phase := range rates {
		if len(r.ratios(phase)) > 0 {
			all = append(all, phase)
		}
	}
	return all
}

// flat is the object that other programs read: numbers with three digits after the point, and facts of the machine.
func (r *results) flat() map[string]any {
	flat := map[string]any{"phases": r.options.phases.String()}
	put := func(key string, value float64) { flat[key] = round(value) }
	for key, value := range r.machine {
		flat[key] = value
	}
	for key, value := range r.values {
		put(key, value)
	}
	measured := r.measured()
	if len(measured) > 0 {
		put("rounds", float64(len(r.ratios(measured[0]))))
		put("claims", float64(r.options.claims))
		put("attaches", float64(r.options.attaches))
		put("turns", float64(r.options.turns))
	}
	for _, phase := range measured {
		paired := r.ratios(phase)
		put(phase+"_ratio_to_floor", median(paired))
		put(phase+"_ratio_lowest", slices.Min(paired))
		put(phase+"_ratio_highest", slices.Max(paired))
		writes := r.writes(collage, phase)
		put(phase+"_writes", writes.sum())
		put(phase+"_writes_through_nodes", writes.throughNodes())
		put(phase+"_writes_direct", writes.sum()-writes.throughNodes())
		put(phase+"_floor_writes", r.writes(floor, phase).sum())
		for prefix, who := range map[string]candidate{phase: collage, phase + "_floor": floor} {
			own, shared := r.processor(who, phase)
			put(prefix+"_processor_ms", own)
			for name, used := range shared {
				put(prefix+"_"+name+"_ms", used)
			}
			put(prefix+"_per_second", r.rate(who, phase))
		}
	}
	ours, floors := r.latencies[collage.name], r.latencies[floor.name]
	if len(ours) > 0 && len(floors) > 0 {
		put("latency_claims", float64(len(ours)))
		for _, percent := range []float64{50, 90, 99} {
			key := fmt.Sprintf("latency_p%.0f_ms", percent)
			put(key, percentile(ours, percent))
			put(key+"_floor", percentile(floors, percent))
			put(key+"_above_floor", percentile(ours, percent)-percentile(floors, percent))
		}
	}
	return flat
}

func round(value float64) float64 { return math.Round(value*1000) / 1000 }

// writeResults leaves results.json, with the goals' limits and whether each was reached, and results.svg.
func writeResults(folder string, flat map[string]any, verdicts []verdict, plot []byte) error {
	all := map[string]any{}
	for key, value := range flat {
		all[key] = value
	}
	for _, v := range verdicts {
		all[v.key+"_limit"], all[v.key+"_pass"] = v.limit, v.pass()
	}
	all["goals"], all["goals_reached"] = len(verdicts), len(verdicts)-len(missedGoals(verdicts))
	content, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(folder, "results.json"), append(content, '\n')); err != nil {
		return err
	}
	return replaceFile(filepath.Join(folder, "results.svg"), plot)
}

func replaceFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", content, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (r *results) print(out io.Writer) {
	measured := r.measured()
	if len(measured) == 0 {
		return
	}
	fmt.Fprintf(out, "\n%d paired rounds; ratio to the floor = floor's seconds / Collage's, median of the pairs\n\n", len(r.ratios(measured[0])))
	fmt.Fprintf(out, "%-16s %7s %15s %11s %9s %8s %8s\n", "", "ratio", "lowest-highest", "collage/s", "floor/s", "writes", "floor's")
	for _, phase := range measured {
		paired := r.ratios(phase)
		fmt.Fprintf(out, "%-16s %7.2f %15s %11.0f %9.0f %8.2f %8.2f\n",
			fmt.Sprintf("%s %.0f", phase, r.rounds[collage.name][phase][0].count), median(paired),
			fmt.Sprintf("%.2f-%.2f", slices.Min(paired), slices.Max(paired)), r.rate(collage, phase), r.rate(floor, phase),
			r.writes(collage, phase).sum(), r.writes(floor, phase).sum())
	}
	fmt.Fprintf(out, "\nmilliseconds of processor time for one operation\n%-22s %10s %11s %19s %6s %6s\n", "", "candidate", "API server",
		"controller manager", "etcd", "sum")
	for _, phase := range measured {
		for _, who := range []candidate{collage, floor} {
			own, shared := r.processor(who, phase)
			sum := own + shared[apiServer] + shared[controllerManager] + shared[etcd]
			fmt.Fprintf(out, "%-22s %10.1f %11.1f %19.1f %6.1f %6.1f\n", phase+" "+who.name, own, shared[apiServer], shared[controllerManager],
				shared[etcd], sum)
		}
	}
	fmt.Fprintf(out, "\nCollage's writes for one operation, by what was written\n")
	for _, phase := range measured {
		var parts []string
		writes := r.writes(collage, phase)
		for _, key := range sortedKeys(writes) {
			parts = append(parts, fmt.Sprintf("%s %.3f", key, writes[key]))
		}
		fmt.Fprintf(out, "  %-10s %s\n", phase, strings.Join(parts, ", "))
	}
}

func sortedKeys(t tally) []string {
	keys := make([]string, 0, len(t))
	for key := range t {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
