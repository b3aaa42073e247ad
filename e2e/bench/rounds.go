package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// allRounds measures the rates, in pairs of rounds: Collage, floor, floor, Collage, Collage. A slow minute of the machine
// meets both, and neither is always the first.
func (s *session) allRounds(ctx context.Context) error {
	for number := 1; number <= s.rounds; number++ {
		pair := []candidate{collage, floor}
		if number%2 == 0 {
			slices.Reverse(pair)
		}
		for _, who := range pair {
			if err := s.round(ctx, number, who); err != nil {
				return fmt.Errorf("round %d of %s: %w", number, who.name, err)
			}
		}
	}
	return nil
}

// round runs all phases by one candidate. Only that one runs meanwhile, and it was started just now: a program that
// watches what the other one does would take a share of the processors.
func (s *session) round(ctx context.Context, number int, who candidate) error {
	starter, metrics := s.programs.startFloor, []string(nil)
	if who == collage {
		starter, metrics = s.operator, collageMetrics()
	}
	running, err := starter(ctx)
	if err != nil {
		return err
	}
	defer running.stop()
	title := fmt.Sprintf("round %d/%d %s", number, s.rounds, who.name)
	// First connections, caches and code paths are nobody's speed.
	warm := &load{api: s.api, who: who, name: fmt.Sprintf("%s-%d-warm", who.name, number), claims: 20, attaches: 10}
	for _, phase := range rates {
		if _, err := warm.run(ctx, phase); err != nil {
			return fmt.Errorf("warm-up: %s: %w", phase, err)
		}
	}
	l := &load{api: s.api, who: who, name: fmt.Sprintf("%s-%d", who.name, number), claims: s.claims, attaches: s.attaches,
		progress: func(format string, arguments ...any) { s.say(title+" "+format, arguments...) }}
	processes := []*process{running}
	if who == collage {
		processes = append(processes, s.agents...)
	}
	before, err := s.read(ctx, metrics, processes)
	for _, phase := range s.plan() {
		if err != nil {
			return err
		}
		before, err = s.phase(ctx, number, title, phase, l, metrics, processes, before)
	}
	if err == nil && who == collage {
		err = s.keepMetrics(ctx)
	}
	return err
}

// plan lists the phases of a round. Attaches and detaches take a few seconds only, in which the machine may do anything:
// they take turns, and what counts is all turns together.
func (s *session) plan() []string {
	plan := []string{"provision"}
	if s.phases.wants("attach", "detach") {
		for range s.turns {
			plan = append(plan, "attach", "detach")
		}
	}
	return append(plan, "delete")
}

// floorWrites are what the floor makes for one operation: what is counted is held against it.
var floorWrites = map[string]float64{"provision": 1, "attach": 2, "detach": 1, "delete": 2}

// reading is the state of all counters at one moment.
type reading struct {
	own       float64 // writes, as Collage counts them
	server    tally   // requests, as the API server counts them
	processor time.Duration
	shared    map[string]time.Duration // processor time of what both candidates use
}

func (s *session) read(ctx context.Context, metrics []string, processes []*process) (r reading, err error) {
	if r.own, err = s.quiet(ctx, metrics, 2*time.Second); err != nil {
		return r, err
	}
	if r.server, err = s.api.requestsCounted(ctx); err != nil {
		return r, err
	}
	if r.shared, err = s.programs.controlPlaneTime(); err != nil {
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

// phase runs one phase from the counters' last reading, and returns the next. What a phase leaves to be written belongs to
// it: the reading waits until it is written.
func (s *session) phase(ctx context.Context, round int, title, phase string, l *load, metrics []string, processes []*process,
	before reading) (reading, error) {
	took, err := l.run(ctx, phase)
	if failed := processes[0].running(); failed != nil {
		return before, failed
	}
	if err != nil {
		return before, fmt.Errorf("%s: %w", phase, err)
	}
	if phase == "provision" && l.who == collage {
		for what, key := range map[string]string{"VmRSS": "operator_rss_mib", "RssAnon": "operator_anon_mib"} {
			value, err := memory(processes[0].pid, what)
			if err != nil {
				return before, err
			}
			s.result.raise(key, value)
		}
	}
	after, err := s.read(ctx, metrics, processes)
	if err != nil {
		return before, err
	}
	m := measurement{took: took, count: float64(l.count(phase)), writes: after.server.minus(before.server).candidates(),
		processor: after.processor - before.processor, shared: map[string]time.Duration{}}
	for name, used := range after.shared {
		m.shared[name] = used - before.shared[name]
	}
	s.say("%s %s: %.2f s, %.0f a second, %.2f writes, %.1f ms of processor time each (API server %.1f, controller manager %.1f)",
		title, phase, took.Seconds(), m.count/took.Seconds(), m.writes.sum()/m.count, m.processor.Seconds()*1000/m.count,
		m.shared[apiServer].Seconds()*1000/m.count, m.shared[controllerManager].Seconds()*1000/m.count)
	s.say("%s %s: requests for one operation, everybody's: %s", title, phase, after.server.minus(before.server).perOperation(m.count))
	if own := after.own - before.own; metrics != nil && math.Abs(own-m.writes.sum()) > 0.02*own+2 {
		s.say("note: the API server counted %.0f writes, Collage says that it sent %.0f", m.writes.sum(), own)
	}
	if expected := floorWrites[phase]; l.who == floor && math.Abs(m.writes.sum()/m.count-expected) > 0.02 {
		s.say("note: the floor makes %.0f writes for one %s; what was counted beyond that (%s) is somebody else's", expected, phase, m.writes)
	}
	if s.phases.wants(phase) {
		s.result.add(l.who, phase, round, m)
	}
	return after, nil
}
