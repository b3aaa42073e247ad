package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// tally counts requests by "VERB resource" ("PATCH volumeattachments/status").
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

func (t tally) plus(other tally) tally {
	total := maps.Clone(t)
	for key, value := range other {
		total[key] += value
	}
	return total
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

// requestsCounted is what the API server counted so far, by everybody.
func (a *api) requestsCounted(ctx context.Context) (tally, error) {
	text, err := a.do(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return nil, err
	}
	return countRequests(bytes.NewReader(text))
}

// countRequests leaves watches out: they are counted when they end.
func countRequests(text io.Reader) (tally, error) {
	counted := tally{}
	err := samples(text, "apiserver_request_total", func(labels map[string]string, value float64) {
		verb, resource := labels["verb"], labels["resource"]
		if verb == "WATCH" || verb == "CONNECT" || labels["dry_run"] != "" || resource == "" {
			return
		}
		if labels["subresource"] != "" {
			resource += "/" + labels["subresource"]
		}
		counted[verb+" "+resource] += value
	})
	return counted, err
}

// writes leaves out what only reads.
func (t tally) writes() tally {
	return t.only(func(verb, _ string) bool { return verb != "GET" && verb != "LIST" })
}

// candidates leaves the writes that are a candidate's, by the table above.
func (t tally) candidates() tally {
	return t.only(func(verb, resource string) bool {
		main, _, _ := strings.Cut(resource, "/")
		return strings.Contains(" "+written[main]+" ", " "+verb+" ")
	})
}

// others are the writes that an idle cluster makes by itself: Leases of nodes and leaders, states of nodes, tokens. All
// else in idle minutes is taken for Collage's.
var others = map[string]bool{
	"leases": true, "nodes/status": true, "serviceaccounts/token": true, "tokenreviews": true, "subjectaccessreviews": true,
	"selfsubjectreviews": true, "flowschemas/status": true, "prioritylevelconfigurations/status": true,
}

// suspects leaves the writes that nobody but Collage makes in an idle cluster.
func (t tally) suspects() tally {
	return t.only(func(_, resource string) bool { return !others[resource] })
}

func (t tally) only(keep func(verb, resource string) bool) tally {
	kept := tally{}
	for key, value := range t {
		if verb, resource, _ := strings.Cut(key, " "); keep(verb, resource) {
			kept[key] = value
		}
	}
	return kept
}

func (t tally) String() string {
	var parts []string
	for _, key := range sortedKeys(t) {
		parts = append(parts, fmt.Sprintf("%s %.0f", key, t[key]))
	}
	return strings.Join(parts, ", ")
}

// perOperation says what is asked for one operation, without what is rare.
func (t tally) perOperation(operations float64) string {
	var parts []string
	for _, key := range sortedKeys(t) {
		if each := t[key] / operations; each >= 0.02 {
			parts = append(parts, fmt.Sprintf("%s %.2f", key, each))
		}
	}
	return strings.Join(parts, ", ")
}

// metricsOf reads what a process of Collage says of itself.
func metricsOf(ctx context.Context, address string) ([]byte, error) {
	return ask(ctx, "http://"+address+"/metrics")
}

// ready is an error that tells what a process of Collage still waits for.
func ready(ctx context.Context, address string) error {
	_, err := ask(ctx, "http://"+address+"/readyz")
	return err
}

func ask(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.300s", url, response.Status, text)
	}
	return text, err
}

// ownWrites is what processes of Collage say that they sent, without events and Leases.
func ownWrites(ctx context.Context, addresses []string) (float64, error) {
	counted, err := ownTally(ctx, addresses)
	if err != nil {
		return 0, err
	}
	return counted.only(func(_, resource string) bool { return resource != "events" && resource != "leases" }).sum(), nil
}

// ownTally is all that processes of Collage say that they wrote.
func ownTally(ctx context.Context, addresses []string) (tally, error) {
	total := tally{}
	for _, address := range addresses {
		text, err := metricsOf(ctx, address)
		if err != nil {
			return nil, err
		}
		err = samples(bytes.NewReader(text), "collage_kube_writes_total", func(labels map[string]string, value float64) {
			total[strings.ToUpper(labels["verb"])+" "+labels["resource"]] += value
		})
		if err != nil {
			return nil, err
		}
	}
	return total, nil
}
