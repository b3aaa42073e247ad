package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"collage/e2e/cluster"
)

const (
	collageDriver = "image.collage.storage"
	floorDriver   = "floor.bench"
)

const backend = `
apiVersion: collage.storage/v1beta1
kind: StorageBackend
metadata: {name: bench}
spec:
  image: {directory: ` + cluster.ShareDir + `}
  storageClasses:
    - {name: bench-collage, volumeBindingMode: Immediate, reclaimPolicy: Delete, parameters: {allocation: sparse}}
`

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
	fmt.Printf("bench [%5.1f s] %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, arguments...))
}

// measure is the bench itself.
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
	defer s.stopAgents()
	if err := s.prepare(ctx); err != nil {
		return err
	}
	for round := 1; round <= o.rounds; round++ {
		for _, who := range []candidate{collage, floor} {
			if err := s.round(ctx, round, who); err != nil {
				return fmt.Errorf("round %d of %s: %w\n  logs: %s", round, who.name, err, s.programs.logs)
			}
		}
	}
	s.result.print(os.Stdout)
	return s.result.write(filepath.Join(o.out, "results.json"))
}

func (s *session) stopAgents() {
	for _, agent := range s.agents {
		agent.stop()
	}
}

// prepare makes what both need, and starts the node agents, which stay for the whole run.
func (s *session) prepare(ctx context.Context) error {
	s.say("apply the CRDs, a StorageBackend and two classes; start the node agents")
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
	if err := s.cluster.Apply(ctx, backend); err != nil {
		return err
	}
	var err error
	s.agents, err = s.programs.startAgents(ctx)
	return err
}

// round runs all phases by one candidate. Only that one runs meanwhile, and it was started just now: a program that
// watches what the other one does would take a share of the processors.
func (s *session) round(ctx context.Context, number int, who candidate) error {
	starter, metrics := s.programs.startFloor, []string(nil)
	if who == collage {
		starter = s.programs.startOperator
		metrics = []string{operatorMetrics}
		for i := range cluster.Nodes {
			metrics = append(metrics, agentMetrics(i))
		}
	}
	running, err := starter(ctx)
	if err != nil {
		return err
	}
	defer running.stop()
	title := fmt.Sprintf("round %d/%d %s", number, s.rounds, who.name)
	if who == collage {
		if err := s.ready(ctx); err != nil {
			return err
		}
	}
	// First connections, caches and code paths are nobody's speed.
	warm := &load{api: s.api, who: who, name: fmt.Sprintf("%s-%d-warm", who.name, number), claims: 20, attaches: 10,
		progress: func(string, ...any) {}}
	for _, phase := range phaseNames {
		if _, err := warm.run(ctx, phase); err != nil {
			return fmt.Errorf("warm-up: %s: %w", phase, err)
		}
	}
	l := &load{api: s.api, who: who, name: fmt.Sprintf("%s-%d", who.name, number), claims: s.claims, attaches: s.attaches,
		progress: func(format string, arguments ...any) { s.say(title+" "+format, arguments...) }}
	for _, phase := range phaseNames {
		if err := s.phase(ctx, title, phase, l, metrics, running); err != nil {
			return fmt.Errorf("%s: %w", phase, err)
		}
	}
	return s.keepMetrics(ctx, metrics)
}

// keepMetrics leaves what Collage's processes say of themselves beside their logs.
func (s *session) keepMetrics(ctx context.Context, metrics []string) error {
	for i, address := range metrics {
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

// ready waits until Collage can attach to each node: kubelet has registered the driver with both.
func (s *session) ready(ctx context.Context) error {
	for _, node := range cluster.Nodes {
		err := s.cluster.WaitFor(ctx, "the CSI driver to be registered on "+node.Name, time.Minute, func() error {
			out, err := s.cluster.Kubectl(ctx, "get", "csinode", node.Name, "-o", "jsonpath={.spec.drivers[*].name}")
			if err == nil && out != collageDriver {
				err = fmt.Errorf("registered are %q", out)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// reading is the state of all counters at one moment.
type reading struct {
	own       float64 // writes, as Collage counts them
	server    tally   // writes, as the API server counts them
	serverCPU time.Duration
	processor time.Duration
}

func (s *session) read(ctx context.Context, metrics []string, processes []*process) (r reading, err error) {
	if r.own, err = s.quiet(ctx, metrics); err != nil {
		return r, err
	}
	if r.server, r.serverCPU, err = s.api.serverCounts(ctx); err != nil {
		return r, err
	}
	for _, p := range processes {
		if err := p.running(); err != nil {
			return r, err
		}
		used, err := processorTime(p.pid)
		if err != nil {
			return r, err
		}
		r.processor += used
	}
	return r, nil
}

func (s *session) phase(ctx context.Context, title, phase string, l *load, metrics []string, running *process) error {
	processes := []*process{running}
	if l.who == collage {
		processes = append(processes, s.agents...)
	}
	before, err := s.read(ctx, metrics, processes)
	if err != nil {
		return err
	}
	took, err := l.run(ctx, phase)
	if failed := running.running(); failed != nil {
		return failed
	}
	if err != nil {
		return err
	}
	if phase == "provision" && l.who == collage {
		if err := s.measureMemory(running); err != nil {
			return err
		}
	}
	// What a phase leaves to be written belongs to it.
	after, err := s.read(ctx, metrics, processes)
	if err != nil {
		return err
	}
	m := measurement{took: took, count: float64(l.count(phase)), writes: after.server.minus(before.server),
		processor: after.processor - before.processor, serverCPU: after.serverCPU - before.serverCPU}
	s.say("%s %s: %.2f s, %.0f a second, %.2f writes, %.1f ms of processor time each (%.1f the API server)", title, phase, took.Seconds(),
		m.count/took.Seconds(), m.writes.sum()/m.count, m.processor.Seconds()*1000/m.count,
		m.serverCPU.Seconds()*1000/m.count)
	if own := after.own - before.own; metrics != nil && math.Abs(own-m.writes.sum()) > 0.02*own+2 {
		s.say("note: the API server counted %.0f writes, Collage says that it sent %.0f", m.writes.sum(), own)
	}
	s.result.add(l.who, phase, m)
	return nil
}

// quiet waits until Collage has written nothing for two seconds, and returns what it counts by then.
func (s *session) quiet(ctx context.Context, metrics []string) (float64, error) {
	if metrics == nil {
		return 0, sleep(ctx, 2*time.Second)
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
		if time.Since(since) >= 2*time.Second {
			return count, nil
		}
		if time.Since(begun) > time.Minute {
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

func (s *session) measureMemory(operator *process) error {
	rss, err := memory(operator.pid, "VmRSS")
	if err != nil {
		return err
	}
	s.result.operatorRSS = max(s.result.operatorRSS, rss)
	for _, agent := range s.agents {
		for what, into := range map[string]*float64{"VmRSS": &s.result.nodeRSS, "RssAnon": &s.result.nodeAnon} {
			value, err := memory(agent.pid, what)
			if err != nil {
				return err
			}
			*into = max(*into, value)
		}
	}
	return nil
}
