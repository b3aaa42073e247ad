package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"collage/e2e/cluster"
)

const (
	collageDriver = "image.collage.storage"
	floorDriver   = "floor.bench"
	localClass    = "bench-local"

	localDirectory = cluster.StateDir + "/volumes"
	localDisk      = cluster.StateDir + "/bench-disk"
)

// One backend of every kind: agents serve and register all of them.
const backends = `
apiVersion: collage.storage/v1beta1
kind: StorageBackend
metadata: {name: bench}
spec:
  image: {directory: ` + cluster.ShareDir + `}
  storageClasses:
    - {name: bench-collage, volumeBindingMode: Immediate, reclaimPolicy: Delete, parameters: {allocation: sparse}}
---
apiVersion: collage.storage/v1beta1
kind: StorageBackend
metadata: {name: bench-local}
spec:
  local: {directory: ` + localDirectory + `}
  storageClasses:
    - {name: ` + localClass + `, volumeBindingMode: WaitForFirstConsumer, reclaimPolicy: Delete, parameters: {allocation: sparse}}
`

var collageDrivers = []string{collageDriver, "local.collage.storage"}

// candidate is who serves a class of claims.
type candidate struct {
	name   string
	class  string
	driver string
}

var (
	collage = candidate{"collage", "bench-collage", collageDriver}
	floor   = candidate{"floor", "bench-floor", floorDriver}
)

// session is one run of the bench in the cluster's network.
type session struct {
	*options
	cluster  *cluster.Cluster
	api      *api
	programs programs
	agents   []*process
	began    time.Time
	result   results
}

func (s *session) say(format string, arguments ...any) {
	fmt.Printf("bench [%6.1f s] %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, arguments...))
}

// errMissed ends a strict run.
var errMissed = errors.New("goals were missed")

// measure is the bench itself. A part that fails leaves its goals unmeasured; the others run and are reported all the same.
func (o *options) measure(ctx context.Context) error {
	c, err := cluster.Open(o.name, "", "")
	if err != nil {
		return err
	}
	s := &session{options: o, cluster: c, began: time.Now(), result: newResults(o)}
	s.programs = programs{cluster: c, bin: o.bin, floor: o.floor, logs: filepath.Join(o.out, "log")}
	if s.api, err = newAPI(c); err != nil {
		return err
	}
	if err := os.RemoveAll(s.programs.logs); err != nil {
		return err
	}
	s.result.machine = describeMachine(ctx, o.bin, s.api)
	defer s.stopAgents()
	if err := s.prepare(ctx); err != nil {
		return err
	}
	failure := s.parts(ctx)
	if ctx.Err() != nil {
		return failure
	}
	s.result.machine["duration_seconds"] = round(time.Since(s.began).Seconds())
	return errors.Join(failure, s.report())
}

func (s *session) parts(ctx context.Context) (failures error) {
	for _, part := range []struct {
		phases []string
		run    func(ctx context.Context) error
	}{
		{rates, s.allRounds},
		{[]string{"latency"}, s.latency},
		{[]string{"node", "idle"}, s.atRest},
		{[]string{"scale"}, s.scale},
	} {
		if !s.phases.wants(part.phases...) {
			continue
		}
		if err := part.run(ctx); err != nil {
			err = fmt.Errorf("%s: %w\n  logs: %s", part.phases[0], err, s.programs.logs)
			failures = errors.Join(failures, err)
			if ctx.Err() != nil {
				return failures
			}
			s.say("FAILED: %v", err)
		}
	}
	return failures
}

// report shows the results and writes them to their files.
func (s *session) report() error {
	flat := s.result.flat()
	verdicts := judge(flat, s.phases)
	s.result.print(os.Stdout)
	printGoals(os.Stdout, verdicts)
	plot := plotSVG(flat, verdicts, s.result.latencies)
	if err := writeResults(s.out, flat, verdicts, plot); err != nil {
		return err
	}
	fmt.Printf("\nwritten to %s\n", filepath.Join(s.out, "results.json and results.svg"))
	if s.docs != "" {
		if err := writeDocs(s.docs, flat, verdicts, plot); err != nil {
			return err
		}
		fmt.Printf("and into benchmarks.md and benchmarks.svg of %s\n", s.docs)
	}
	if missed := missedGoals(verdicts); s.strict && len(missed) > 0 {
		return fmt.Errorf("%w: %s", errMissed, strings.Join(missed, ", "))
	}
	return nil
}

func (s *session) stopAgents() {
	for _, agent := range s.agents {
		agent.stop()
	}
	s.agents = nil
}

// prepare makes what both need, and starts the node agents.
func (s *session) prepare(ctx context.Context) error {
	s.say("apply the CRDs, a StorageBackend of every kind and the classes; start the node agents")
	if _, err := s.cluster.Kubectl(ctx, "apply", "--server-side", "-f", s.crds); err != nil {
		return err
	}
	if _, err := s.cluster.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=60s", "crd",
		"storagebackends.collage.storage", "storagenodes.collage.storage"); err != nil {
		return err
	}
	for _, name := range []string{system, space} {
		if _, err := s.api.do(ctx, http.MethodPost, "/api/v1/namespaces",
			fields{"apiVersion": "v1", "kind": "Namespace", "metadata": fields{"name": name}}); exists(err) != nil {
			return err
		}
	}
	if _, err := s.api.do(ctx, http.MethodPost, "/apis/storage.k8s.io/v1/storageclasses",
		classObject(floor.class, floorDriver)); exists(err) != nil {
		return err
	}
	// A file system of its own, as on a real node: on the machine's root any other program's files would change the room.
	for _, node := range nodeNames() {
		if _, err := s.cluster.NodeExec(ctx, node, "sh", "-ec", "mkdir -p "+localDirectory+"; truncate -s 4G "+localDisk+
			"; mkfs.ext4 -q "+localDisk+"; mount -o loop "+localDisk+" "+localDirectory); err != nil {
			return err
		}
	}
	if err := s.cluster.Apply(ctx, backends); err != nil {
		return err
	}
	var err error
	s.agents, err = s.programs.startAgents(ctx)
	return err
}

// operator starts `collage operator` and waits until it can serve every kind on every node.
func (s *session) operator(ctx context.Context) (*process, error) {
	running, err := s.programs.startOperator(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		running.stop()
		return nil, err
	}
	return running, nil
}

// collageMetrics is where Collage's processes tell what they did.
func collageMetrics() []string {
	metrics := []string{operatorMetrics}
	for i := range cluster.Nodes {
		metrics = append(metrics, agentMetrics(i))
	}
	return metrics
}

// keepMetrics leaves what Collage's processes say of themselves beside their logs.
func (s *session) keepMetrics(ctx context.Context) error {
	for i, address := range collageMetrics() {
		text, err := metricsOf(ctx, address)
		if err != nil {
			return err
		}
		name := append([]string{"operator"}, nodeNames()...)[i]
		if err := os.WriteFile(filepath.Join(s.programs.logs, name+".metrics"), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func nodeNames() []string {
	var names []string
	for _, node := range cluster.Nodes {
		names = append(names, node.Name)
	}
	return names
}

// ready waits until Collage can attach to each node (kubelet has registered every driver with both), and its backends say
// that they are Ready.
func (s *session) ready(ctx context.Context) error {
	for _, node := range cluster.Nodes {
		err := s.cluster.WaitFor(ctx, "the CSI drivers to be registered on "+node.Name, time.Minute, func() error {
			out, err := s.cluster.Kubectl(ctx, "get", "csinode", node.Name, "-o", "jsonpath={.spec.drivers[*].name}")
			if err != nil {
				return err
			}
			for _, driver := range collageDrivers {
				if !strings.Contains(out, driver) {
					return fmt.Errorf("registered are %q", out)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if _, err := s.cluster.Kubectl(ctx, "wait", "--for=condition=Ready", "--timeout=60s", "storagebackend", "--all"); err != nil {
		status, _ := s.cluster.Kubectl(ctx, "get", "storagebackend", "-o", `jsonpath={range .items[*]}{.metadata.name}: {.status.conditions}{"\n"}{end}`)
		return fmt.Errorf("%w\n%s", err, status)
	}
	return nil
}

// quiet waits until Collage has written nothing for so long, and returns what it counts by then.
func (s *session) quiet(ctx context.Context, metrics []string, length time.Duration) (float64, error) {
	if metrics == nil {
		return 0, sleep(ctx, length)
	}
	last, since := -1.0, time.Now()
	for begun := time.Now(); ; {
		count, err := ownWrites(ctx, metrics)
		if err != nil {
			return 0, err
		}
		if count != last {
			last, since = count, time.Now()
		}
		if time.Since(since) >= length {
			return count, nil
		}
		if time.Since(begun) > length+time.Minute {
			return 0, fmt.Errorf("Collage goes on writing with nothing to do (%.0f writes so far)", count)
		}
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

func sleep(ctx context.Context, duration time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(duration):
		return nil
	}
}
