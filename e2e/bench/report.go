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

// results collects every measurement of a run.
type results struct {
	options *options
	seconds map[string]map[string][]float64 // by candidate and phase, a number a round
	writes  map[string]map[string]tally     // of all rounds
	done    map[string]map[string]float64   // operations in all rounds

	operatorRSS, nodeRSS, nodeAnon float64 // MiB, the largest seen
}

func newResults(o *options) results {
	r := results{options: o, seconds: map[string]map[string][]float64{}, writes: map[string]map[string]tally{},
		done: map[string]map[string]float64{}}
	for _, who := range []candidate{collage, floor} {
		r.seconds[who.name], r.writes[who.name] = map[string][]float64{}, map[string]tally{}
		r.done[who.name] = map[string]float64{}
	}
	return r
}

func (r *results) add(who candidate, phase string, took time.Duration, counted tally, count float64) {
	r.seconds[who.name][phase] = append(r.seconds[who.name][phase], took.Seconds())
	if r.writes[who.name][phase] == nil {
		r.writes[who.name][phase] = tally{}
	}
	for key, value := range counted {
		r.writes[who.name][phase][key] += value
	}
	r.done[who.name][phase] += count
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
	return ratios(r.seconds[floor.name][phase], r.seconds[collage.name][phase])
}

// rate is the median of operations a second.
func (r *results) rate(who candidate, phase string) float64 {
	return r.done[who.name][phase] / float64(r.options.rounds) / median(r.seconds[who.name][phase])
}

func (r *results) writesEach(who candidate, phase string) float64 {
	return r.writes[who.name][phase].sum() / r.done[who.name][phase]
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
		flat[phase+"_writes"] = r.writesEach(collage, phase)
		flat[phase+"_writes_through_nodes"] = r.writes[collage.name][phase].throughNodes() / r.done[collage.name][phase]
		flat[phase+"_floor_writes"] = r.writesEach(floor, phase)
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
	fmt.Fprintf(out, "%-22s %7s %15s %12s %12s %8s %8s\n", "", "ratio", "lowest-highest", "collage/s", "floor/s", "writes", "floor's")
	for _, phase := range phaseNames {
		paired := r.ratios(phase)
		count := r.done[collage.name][phase] / float64(r.options.rounds)
		fmt.Fprintf(out, "%-22s %7.2f %15s %12.0f %12.0f %8.2f %8.2f\n", fmt.Sprintf("%s %.0f", phase, count), median(paired),
			fmt.Sprintf("%.2f-%.2f", slices.Min(paired), slices.Max(paired)), r.rate(collage, phase), r.rate(floor, phase),
			r.writesEach(collage, phase), r.writesEach(floor, phase))
	}
	fmt.Fprintf(out, "\nCollage's writes for one operation, by what was written\n")
	for _, phase := range phaseNames {
		var parts []string
		counted := r.writes[collage.name][phase]
		for _, key := range sortedKeys(counted) {
			parts = append(parts, fmt.Sprintf("%s %.3f", key, counted[key]/r.done[collage.name][phase]))
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
