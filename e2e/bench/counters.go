package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// tally counts writes by "VERB resource" ("PATCH volumeattachments/status").
type tally map[string]float64

func (t tally) minus(before tally) tally {
	difference := tally{}
	for key, value := range t {
		if value -= before[key]; value != 0 {
			difference[key] = value
		}
	}
	return difference
}

func (t tally) sum() float64 {
	total := 0.0
	for _, value := range t {
		total += value
	}
	return total
}

// throughNodes counts the writes of StorageNodes: calls that a node carries out for the operator, and its answers.
func (t tally) throughNodes() float64 {
	total := 0.0
	for key, value := range t {
		if resource, _, _ := strings.Cut(strings.Fields(key)[1], "/"); resource == "storagenodes" {
			total += value
		}
	}
	return total
}

// written says which writes are a candidate's. apiserver_request_total has no label for who sent a request, but verb and
// resource tell: the controller manager updates claims and volumes by PUT and never creates or deletes a volume of a CSI
// driver, the bench itself creates and deletes claims and attachments and never patches them, and nobody else writes
// the rest while the bench runs. Events and Leases are left out.
var written = map[string]string{
	"persistentvolumes":      "POST PATCH APPLY DELETE",
	"persistentvolumeclaims": "PATCH APPLY",
	"volumeattachments":      "PUT PATCH APPLY",
	"configmaps":             "POST PUT PATCH APPLY DELETE",
	"storagenodes":           "POST PUT PATCH APPLY DELETE",
	"storagebackends":        "POST PUT PATCH APPLY DELETE",
	"storageclasses":         "POST PUT PATCH APPLY DELETE",
	"csidrivers":             "POST PUT PATCH APPLY DELETE",
	"csistoragecapacities":   "POST PUT PATCH APPLY DELETE",
	"secrets":                "POST PUT PATCH APPLY DELETE",
}

// samples calls back for each sample of one metric family in the text exposition format.
func samples(text io.Reader, family string, found func(labels map[string]string, value float64)) error {
	lines := bufio.NewScanner(text)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), family)
		if !ok || rest == "" || (rest[0] != '{' && rest[0] != ' ') {
			continue
		}
		labels := map[string]string{}
		if rest[0] == ' ' {
			rest = "{}" + rest
		}
		rest = rest[1:]
		for !strings.HasPrefix(rest, "}") {
			name, tail, ok := strings.Cut(rest, `="`)
			end := closingQuote(tail)
			if !ok || end < 0 {
				return fmt.Errorf("cannot read the metric %q", lines.Text())
			}
			labels[strings.TrimPrefix(name, ",")], rest = tail[:end], tail[end+1:]
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(rest[1:]), 64)
		if err != nil {
			return fmt.Errorf("cannot read the metric %q", lines.Text())
		}
		found(labels, value)
	}
	return lines.Err()
}

func closingQuote(text string) int {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

// serverCounts is what the API server says of the candidates' writes, and of its own processor time.
func (a *api) serverCounts(ctx context.Context) (tally, time.Duration, error) {
	text, err := a.do(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return nil, 0, err
	}
	counted := tally{}
	err = samples(bytes.NewReader(text), "apiserver_request_total", func(labels map[string]string, value float64) {
		if !strings.Contains(" "+written[labels["resource"]]+" ", " "+labels["verb"]+" ") {
			return
		}
		resource := labels["resource"]
		if labels["subresource"] != "" {
			resource += "/" + labels["subresource"]
		}
		counted[labels["verb"]+" "+resource] += value
	})
	if err != nil {
		return nil, 0, err
	}
	var processor time.Duration
	err = samples(bytes.NewReader(text), "process_cpu_seconds_total", func(_ map[string]string, value float64) {
		processor = time.Duration(value * float64(time.Second))
	})
	return counted, processor, err
}

// metricsOf reads what a process of Collage says of itself.
func metricsOf(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return io.ReadAll(response.Body)
}

// ownWrites is what processes of Collage say that they sent, without events and Leases.
func ownWrites(ctx context.Context, addresses []string) (float64, error) {
	total := 0.0
	for _, address := range addresses {
		text, err := metricsOf(ctx, address)
		if err != nil {
			return 0, err
		}
		err = samples(bytes.NewReader(text), "collage_kube_writes_total", func(labels map[string]string, value float64) {
			if labels["resource"] != "events" && labels["resource"] != "leases" {
				total += value
			}
		})
		if err != nil {
			return 0, err
		}
	}
	return total, nil
}
