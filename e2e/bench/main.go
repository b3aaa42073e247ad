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
	rounds   int
	claims   int
	attaches int
	inside   bool
}

func main() {
	cluster.HandleReexec()
	var o options
	flag.StringVar(&o.name, "name", "bench", "of the cluster")
	flag.StringVar(&o.bin, "bin", "build/release/bin", "folder of collage and collage-mount")
	flag.StringVar(&o.floor, "floor", "build/e2e/bin/floor", "the floor's program")
	flag.StringVar(&o.out, "out", "build/bench", "folder of results.json and the logs")
	flag.StringVar(&o.crds, "crds", "crds", "folder of the CRDs")
	flag.IntVar(&o.rounds, "rounds", 3, "pairs of rounds, one by Collage and one by the floor")
	flag.IntVar(&o.claims, "claims", 1000, "made and deleted in each round")
	flag.IntVar(&o.attaches, "attaches", 300, "and detaches in each round")
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
	if o.rounds < 1 || o.claims < 1 || o.attaches < 1 || o.attaches > o.claims {
		return errors.New("rounds, claims and attaches must be at least 1, and there are no more attaches than claims")
	}
	for _, path := range []*string{&o.bin, &o.floor, &o.out, &o.crds} {
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
