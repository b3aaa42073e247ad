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

const counters = `apiserver_request_total{code="201",component="apiserver",dry_run="",resource="persistentvolumes",scope="resource",subresource="",verb="POST"} 10
apiserver_request_total{code="409",component="apiserver",dry_run="",resource="persistentvolumes",scope="resource",subresource="",verb="POST"} 1
apiserver_request_total{code="200",component="apiserver",dry_run="",resource="persistentvolumes",scope="cluster",subresource="",verb="LIST"} 7
apiserver_request_total{code="200",component="apiserver",dry_run="",resource="persistentvolumes",scope="resource",subresource="status",verb="PUT"} 10
apiserver_request_total{code="200",component="apiserver",dry_run="All",resource="persistentvolumes",scope="resource",subresource="",verb="PATCH"} 3
apiserver_request_total{code="200",component="apiserver",dry_run="",resource="storagenodes",scope="resource",subresource="status",verb="PATCH"} 2
apiserver_request_total{code="200",component="apiserver",dry_run="",resource="leases",scope="resource",subresource="",verb="PUT"} 30
apiserver_request_total{code="200",component="apiserver",dry_run="",resource="nodes",scope="resource",subresource="status",verb="PATCH"} 4
apiserver_request_total{code="201",component="apiserver",dry_run="",resource="events",scope="resource",subresource="",verb="POST"} 5
apiserver_request_total{code="200",component="apiserver",dry_run="",resource="",scope="",subresource="/healthz",verb="POST"} 9
`

func TestOnlyWritesAreCounted(t *testing.T) {
	all, err := countRequests(strings.NewReader(counters))
	if err != nil {
		t.Fatal(err)
	}
	if all["LIST persistentvolumes"] != 7 || !strings.HasPrefix(all.perOperation(100), "LIST persistentvolumes 0.07, ") {
		t.Errorf("all are %v, for one of a hundred operations %s", all, all.perOperation(100))
	}
	counted := all.writes()
	if counted["POST persistentvolumes"] != 11 || counted.sum() != 62 {
		t.Errorf("counted %v", counted)
	}
	// The controller manager updates volumes by PUT: it is not a candidate's write.
	if mine := counted.candidates(); len(mine) != 2 || mine.sum() != 13 {
		t.Errorf("the candidates' are %v", mine)
	}
	// In idle minutes all is suspect but Leases and the states of nodes.
	if idle := counted.suspects(); idle.sum() != 28 || idle["PUT persistentvolumes/status"] != 10 || idle["POST events"] != 5 {
		t.Errorf("suspects are %v", idle)
	}
}

func TestEventsOfOthersAreNotCollages(t *testing.T) {
	an := func(uid, version, reporting, source string, count int) (e event) {
		e.Metadata.UID, e.Metadata.ResourceVersion, e.ReportingComponent, e.Source.Component, e.Count = uid, version, reporting, source, count
		return e
	}
	before := []event{an("a", "98", "", "kubelet", 3), an("b", "99", "", "kubelet", 1)}
	after := []event{
		an("a", "120", "", "kubelet", 5),           // of others, twice more
		an("b", "99", "", "kubelet", 1),            // not written
		an("c", "102", "collage-operator", "", 1),  // Collage's
		an("d", "103", "", "collage-operator", 1),  // Collage's
		an("e", "200", "default-scheduler", "", 0), // of others, of the newer kind
	}
	if writes := foreignEvents(before, after); writes != 3 {
		t.Errorf("%d writes of others, expected 3", writes)
	}
}
