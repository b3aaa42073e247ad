// The bench command measures Collage beside the floor: the least that a program with client-go can do to satisfy
// Kubernetes, with no storage behind it. Both run on one API server in one run, in turn. docs/benchmarks.md tells what is
// measured and how to read it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"collage/e2e/cluster"
)

const system = "collage-system"

// options are the same for the two processes that make up the bench.
type options struct {
	name     string
	bin      string
	floor    string
	out      string
	crds     string
	docs     string
	phases   phaseList
	rounds   int
	claims   int
	attaches int
	turns    int
	serial   int
	staged   int
	idle     time.Duration
	objects  int
	restarts int
	strict   bool
	inside   bool
}

// phaseNames are all phases, in the order in which they run. The first four make up a round.
var phaseNames = []string{"provision", "attach", "detach", "delete", "latency", "node", "idle", "scale"}

// rates are the phases of a round.
var rates = phaseNames[:4]

// phaseList is a flag: names of phases with commas between them.
type phaseList []string

func (l *phaseList) String() string { return strings.Join(*l, ",") }

func (l *phaseList) Set(text string) error {
	*l = nil
	for _, name := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		if !slices.Contains(phaseNames, name) {
			return fmt.Errorf("no phase %q: there are %s", name, strings.Join(phaseNames, ", "))
		}
		*l = append(*l, name)
	}
	if len(*l) == 0 {
		return errors.New("name at least one phase")
	}
	return nil
}

// wants tells whether any of the phases was chosen.
func (l phaseList) wants(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return slices.Contains(l, name) })
}

func main() {
	cluster.HandleReexec()
	o := options{phases: phaseNames}
	flag.StringVar(&o.name, "name", "bench", "of the cluster")
	flag.StringVar(&o.bin, "bin", "build/release/bin", "folder of collage and collage-mount")
	flag.StringVar(&o.floor, "floor", "build/e2e/bin/floor", "the floor's program")
	flag.StringVar(&o.out, "out", "build/bench", "folder of results.json, results.svg and the logs")
	flag.StringVar(&o.crds, "crds", "crds", "folder of the CRDs")
	flag.StringVar(&o.docs, "docs", "", "folder whose benchmarks.md and benchmarks.svg get the results; none without it")
	flag.Var(&o.phases, "phases", "which to run, with commas between them")
	flag.IntVar(&o.rounds, "rounds", 5, "pairs of rounds, one by Collage and one by the floor")
	flag.IntVar(&o.claims, "claims", 1000, "made and deleted in each round")
	flag.IntVar(&o.attaches, "attaches", 1000, "and detaches in each turn")
	flag.IntVar(&o.turns, "turns", 3, "of attaches and detaches in each round")
	flag.IntVar(&o.serial, "serial", 200, "claims made one after the other, for the latency")
	flag.IntVar(&o.staged, "staged", 50, "volumes mounted on a node, for its memory")
	flag.DurationVar(&o.idle, "idle", 5*time.Minute, "in which nothing is asked for, for the idle writes")
	flag.IntVar(&o.objects, "objects", 10000, "claims, volumes and pods each, for the memory and restarts of the operator")
	flag.IntVar(&o.restarts, "restarts", 3, "of the operator with all these objects")
	flag.BoolVar(&o.strict, "strict", false, "fail when a goal is missed")
	flag.BoolVar(&o.inside, "inside", false, "run in the cluster's network (the bench starts itself so)")
	flag.Parse()
	if err := o.check(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	run := o.outside
	if o.inside {
		run = o.measure
	}
	err := run(ctx)
	cancel()
	if err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) { // the other process has told already
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(1)
	}
}

func (o *options) check() error {
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	for name, number := range map[string]int{"rounds": o.rounds, "claims": o.claims, "attaches": o.attaches, "turns": o.turns, "serial": o.serial,
		"staged": o.staged, "objects": o.objects, "restarts": o.restarts} {
		if number < 1 {
			return fmt.Errorf("--%s must be at least 1", name)
		}
	}
	if o.attaches > o.claims {
		return errors.New("there cannot be more attaches than claims")
	}
	for _, path := range []*string{&o.bin, &o.floor, &o.out, &o.crds, &o.docs} {
		if *path == "" {
			continue
		}
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	for _, program := range []string{filepath.Join(o.bin, "collage"), filepath.Join(o.bin, "collage-mount"), o.floor} {
		if _, err := os.Stat(program); err != nil {
			return fmt.Errorf("%w: build it with e2e/bench/run.sh", err)
		}
	}
	return nil
}

// outside boots the cluster, starts the bench in its network and removes the cluster again, whatever happens.
func (o *options) outside(ctx context.Context) (err error) {
	c, err := cluster.Open(o.name, "", "")
	if err != nil {
		return err
	}
	if err := c.Down(os.Stdout); err != nil {
		return fmt.Errorf("remove an earlier cluster: %w", err)
	}
	defer func() { err = errors.Join(err, c.Down(os.Stdout)) }()
	if err := c.Up(ctx, os.Stdout); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	command, err := c.Command(ctx, append([]string{self, "--inside"}, os.Args[1:]...)...)
	if err != nil {
		return err
	}
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	// An interrupt from a terminal goes to both; the one inside gets time to end what it started.
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = time.Minute
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	return command.Run()
}
