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
	processor time.Duration // of the candidate
	serverCPU time.Duration // of the API server
}

// results collects every measurement of a run.
type results struct {
	options *options
	rounds  map[string]map[string][]measurement // by candidate and phase

	operatorRSS, nodeRSS, nodeAnon float64 // MiB, the largest seen
}

func newResults(o *options) results {
	return results{options: o,
		rounds: map[string]map[string][]measurement{collage.name: {}, floor.name: {}}}
}

func (r *results) add(who candidate, phase string, m measurement) {
	r.rounds[who.name][phase] = append(r.rounds[who.name][phase], m)
}

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

// processor is the median of milliseconds of processor time for one operation: the candidate's and the API server's.
func (r *results) processor(who candidate, phase string) (own, server float64) {
	var all, servers []float64
	for _, m := range r.rounds[who.name][phase] {
		all = append(all, m.processor.Seconds()*1000/m.count)
		servers = append(servers, m.serverCPU.Seconds()*1000/m.count)
	}
	return median(all), median(servers)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// ratios of paired rounds: 1 is as quick as the floor, 0.5 takes twice as long.
func ratios(floorSeconds, collageSeconds []float64) []float64 {
	paired := make([]float64, len(collageSeconds))
	for i := range paired {
		paired[i] = floorSeconds[i] / collageSeconds[i]
	}
	return paired
}

func (r *results) ratios(phase string) []float64 {
	return ratios(r.seconds(floor, phase), r.seconds(collage, phase))
}

// write makes the flat object that other programs read.
func (r *results) write(path string) error {
	flat := map[string]float64{
		"rounds": float64(r.options.rounds), "claims": float64(r.options.claims), "attaches": float64(r.options.attaches),
		"operator_rss_mib": r.operatorRSS, "node_rss_mib": r.nodeRSS, "node_anon_mib": r.nodeAnon,
	}
	for _, phase := range phaseNames {
		paired := r.ratios(phase)
		flat[phase+"_ratio_to_floor"] = median(paired)
		flat[phase+"_ratio_lowest"], flat[phase+"_ratio_highest"] = slices.Min(paired), slices.Max(paired)
		writes := r.writes(collage, phase)
		flat[phase+"_writes"], flat[phase+"_writes_through_nodes"] = writes.sum(), writes.throughNodes()
		flat[phase+"_floor_writes"] = r.writes(floor, phase).sum()
		flat[phase+"_processor_ms"], flat[phase+"_apiserver_ms"] = r.processor(collage, phase)
		flat[phase+"_floor_processor_ms"], flat[phase+"_floor_apiserver_ms"] = r.processor(floor, phase)
		flat[phase+"_per_second"] = r.rate(collage, phase)
		flat[phase+"_floor_per_second"] = r.rate(floor, phase)
	}
	for key, value := range flat {
		flat[key] = math.Round(value*1000) / 1000
	}
	content, err := json.MarshalIndent(flat, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(content, '\n'), 0o644); err != nil {
		return err
	}
	fmt.Printf("\nwritten to %s\n", path)
	return os.Rename(path+".new", path)
}

func (r *results) print(out io.Writer) {
	fmt.Fprintf(out, "\n%d rounds; ratio to the floor = floor's seconds / Collage's, median of paired rounds\n\n", r.options.rounds)
	fmt.Fprintf(out, "%-16s %7s %15s %11s %9s %8s %8s %9s %9s\n", "", "ratio", "lowest-highest", "collage/s", "floor/s",
		"writes", "floor's", "cpu ms", "floor's")
	for _, phase := range phaseNames {
		paired := r.ratios(phase)
		own, server := r.processor(collage, phase)
		floorOwn, floorServer := r.processor(floor, phase)
		fmt.Fprintf(out, "%-16s %7.2f %15s %11.0f %9.0f %8.2f %8.2f %9s %9s\n",
			fmt.Sprintf("%s %.0f", phase, r.rounds[collage.name][phase][0].count), median(paired),
			fmt.Sprintf("%.2f-%.2f", slices.Min(paired), slices.Max(paired)), r.rate(collage, phase), r.rate(floor, phase),
			r.writes(collage, phase).sum(), r.writes(floor, phase).sum(),
			fmt.Sprintf("%.1f+%.1f", own, server), fmt.Sprintf("%.1f+%.1f", floorOwn, floorServer))
	}
	fmt.Fprintf(out, "cpu ms: processor time for one operation, the candidate's own + the API server's meanwhile\n")
	fmt.Fprintf(out, "\nCollage's writes for one operation, by what was written\n")
	for _, phase := range phaseNames {
		var parts []string
		writes := r.writes(collage, phase)
		for _, key := range sortedKeys(writes) {
			parts = append(parts, fmt.Sprintf("%s %.3f", key, writes[key]))
		}
		fmt.Fprintf(out, "  %-10s %s\n", phase, strings.Join(parts, ", "))
	}
	fmt.Fprintf(out, "\nmemory: operator %.1f MiB resident after %d claims; node agent %.1f MiB resident, %.1f of it anonymous\n",
		r.operatorRSS, r.options.claims, r.nodeRSS, r.nodeAnon)
}

func sortedKeys(t tally) []string {
	keys := make([]string, 0, len(t))
	for key := range t {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
