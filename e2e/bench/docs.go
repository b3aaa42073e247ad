package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The part of benchmarks.md between these lines is the bench's own.
const (
	resultsBegin = "<!-- results: written by BENCH_DOCS=1 make bench -->"
	resultsEnd   = "<!-- end of results -->"
)

// writeDocs puts the table of a run into benchmarks.md and its plot beside it.
func writeDocs(folder string, flat map[string]any, verdicts []verdict, plot []byte) error {
	path := filepath.Join(folder, "benchmarks.md")
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	page, err = withResults(page, markdown(flat, verdicts))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := replaceFile(filepath.Join(folder, "benchmarks.svg"), plot); err != nil {
		return err
	}
	return replaceFile(path, page)
}

func withResults(page, results []byte) ([]byte, error) {
	before, rest, found := bytes.Cut(page, []byte(resultsBegin+"\n"))
	_, after, ended := bytes.Cut(rest, []byte(resultsEnd+"\n"))
	if !found || !ended {
		return nil, fmt.Errorf("the lines %q and %q must be there", resultsBegin, resultsEnd)
	}
	return bytes.Join([][]byte{before, []byte(resultsBegin + "\n"), results, []byte(resultsEnd + "\n"), after}, nil), nil
}

func markdown(flat map[string]any, verdicts []verdict) []byte {
	var out bytes.Buffer
	date, _, _ := strings.Cut(text(flat["date"]), "T")
	memory, _ := figure(flat, "machine_memory_mib")
	fmt.Fprintf(&out, "\n%s, %v cores (%v), %.0f GiB, kernel %v, Kubernetes %v, load %v when it began.\n\n", date, flat["machine_cores"],
		flat["machine_processor"], memory/1024, flat["machine_kernel"], flat["version_kubernetes"], flat["machine_load_at_start"])
	out.WriteString("![Rates as a share of the floor's, latency of one claim, memory and its limits](benchmarks.svg)\n\n")
	out.WriteString("| goal | | measured | limit | |\n|---|---|---|---|---|\n")
	for _, v := range verdicts {
		value, limit, result := v.columns()
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s | %s |\n", v.key, v.what, value, strings.NewReplacer("<=", "≤", ">=", "≥").Replace(limit),
			strings.ReplaceAll(result, "FAIL", "**missed**"))
	}
	if rows := rateRows(flat); rows != "" {
		out.WriteString("\n| | Collage/s | floor/s | ratio | lowest to highest | writes | floor's | processor ms | floor's |\n" +
			"|---|---|---|---|---|---|---|---|---|\n" + rows)
		out.WriteString("\nProcessor ms: for one operation, the candidate + API server + controller manager + etcd.\n")
	}
	out.WriteString("\n")
	return out.Bytes()
}

func rateRows(flat map[string]any) string {
	var rows strings.Builder
	for _, phase := range rates {
		ratio, ok := figure(flat, phase+"_ratio_to_floor")
		if !ok {
			continue
		}
		get := func(key string) float64 { value, _ := figure(flat, phase+key); return value }
		processor := func(who string) string {
			return fmt.Sprintf("%.1f + %.1f + %.1f + %.1f", get(who+"_processor_ms"), get(who+"_"+apiServer+"_ms"),
				get(who+"_"+controllerManager+"_ms"), get(who+"_"+etcd+"_ms"))
		}
		fmt.Fprintf(&rows, "| %s | %.0f | %.0f | %.2f | %.2f to %.2f | %.2f | %.2f | %s | %s |\n", phase, get("_per_second"),
			get("_floor_per_second"), ratio, get("_ratio_lowest"), get("_ratio_highest"), get("_writes"), get("_floor_writes"),
			processor(""), processor("_floor"))
	}
	return rows.String()
}
