package main

import (
	"strings"
	"testing"
)

func TestSamplesReadsTheTextFormat(t *testing.T) {
	text := `# TYPE apiserver_request_total counter
apiserver_request_total{code="201",resource="persistentvolumes",subresource="",verb="POST"} 1000
apiserver_request_total_other{code="201"} 5
apiserver_request_total{code="409",resource="a \"quoted\" one",subresource="status",verb="PATCH"} 1.5e+02
`
	seen := map[string]float64{}
	err := samples(strings.NewReader(text), "apiserver_request_total", func(labels map[string]string, value float64) {
		seen[labels["code"]+" "+labels["verb"]+" "+labels["resource"]+"/"+labels["subresource"]] = value
	})
	if err != nil {
		t.Fatal(err)
	}
	total := 0.0
	if err := samples(strings.NewReader("cpu 1.5\ncpus 3\n"), "cpu", func(_ map[string]string, value float64) { total += value }); err != nil || total != 1.5 {
		t.Fatalf("without labels: %v, %v", total, err)
	}
	if len(seen) != 2 || seen["201 POST persistentvolumes/"] != 1000 || seen[`409 PATCH a \"quoted\" one/status`] != 150 {
		t.Fatalf("read %v", seen)
	}
}

func TestSamplesRefusesWhatItCannotRead(t *testing.T) {
	for _, text := range []string{`x{a="b} 1`, `x{a="b"} one`, `x{a} 1`} {
		if samples(strings.NewReader(text), "x", func(map[string]string, float64) {}) == nil {
			t.Errorf("%q was read", text)
		}
	}
}

func TestTallyTellsTheDifference(t *testing.T) {
	before := tally{"POST persistentvolumes": 3, "PATCH storagenodes": 7}
	after := tally{"POST persistentvolumes": 13, "PATCH storagenodes": 7, "PATCH storagenodes/status": 4}
	grown := after.minus(before)
	if len(grown) != 2 || grown.sum() != 14 || grown.throughNodes() != 4 {
		t.Fatalf("difference %v", grown)
	}
}

func TestRatiosAreOfPairedRounds(t *testing.T) {
	// The second pair ran on a slow moment of the machine: pairing keeps it out of the ratio.
	floor, collage := []float64{1, 10, 2}, []float64{2, 20, 4}
	if ratio := median(ratios(floor, collage)); ratio != 0.5 {
		t.Errorf("ratio %v, expected 0.5", ratio)
	}
	if m := median([]float64{4, 1, 3, 2}); m != 2.5 {
		t.Errorf("median of an even number: %v, expected 2.5", m)
	}
}
