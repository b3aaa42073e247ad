// The cluster command boots, drives and removes a two-node Kubernetes on this machine.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"collage/e2e/cluster"
)

const usage = `usage: cluster [--name NAME] [--dir FOLDER] [--bin FOLDER] VERB

  preflight [FOR]         say what booting a cluster does to this machine, check that it can; FOR: quickstart, test, bench
  up                      boot it, or say that it is up; what a crash left is removed first
  down                    remove it and everything it made
  status                  its components
  load ARCHIVE...         import docker-archive images into both nodes
  kubectl ARGUMENTS...    kubectl as administrator
  helm ARGUMENTS...       helm as administrator
  enter [--] PROGRAM...   run a program of this machine in the cluster's network
  node NAME [--] PROGRAM  run a program on node-a or node-b, in its mounts and processes
  stop COMPONENT [SIGNAL] end a component (etcd, kube-apiserver, node-a/kubelet, ...); it stays so until started
  start COMPONENT         start a stopped component
  env                     shell lines for kubectl and helm: eval "$(cluster env)"
`

func main() {
	cluster.HandleReexec()
	os.Exit(run())
}

func run() int {
	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage); flags.PrintDefaults() }
	name := flags.String("name", "dev", "of the cluster; several can run beside each other")
	dir := flags.String("dir", "", "where the cluster keeps everything (default build/e2e/clusters/NAME)")
	bin := flags.String("bin", "", "where kube, kubectl and helm are (default build/e2e/bin)")
	if flags.Parse(os.Args[1:]) != nil || flags.NArg() == 0 {
		if flags.NArg() == 0 {
			flags.Usage()
		}
		return 2
	}
	c, err := cluster.Open(*name, *dir, *bin)
	if err != nil {
		return fail(err)
	}
	verb, arguments := flags.Arg(0), flags.Args()[1:]
	switch verb {
	case "kubectl", "helm":
		return interactive(c.Command(context.Background(), append([]string{verb}, arguments...)...))
	case "enter":
		if arguments = afterDashes(arguments); len(arguments) > 0 {
			return interactive(c.Command(context.Background(), arguments...))
		}
	case "node":
		if len(arguments) > 1 {
			if program := afterDashes(arguments[1:]); len(program) > 0 {
				return interactive(c.NodeCommand(context.Background(), arguments[0], program...))
			}
		}
	default:
		// The verbs above pass signals on to the program; these are interrupted by them.
		ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer cancel()
		return manage(ctx, c, verb, arguments)
	}
	flags.Usage()
	return 2
}

func manage(ctx context.Context, c *cluster.Cluster, verb string, arguments []string) int {
	var err error
	switch {
	case verb == "preflight" && len(arguments) <= 1:
		purpose := "test"
		if len(arguments) == 1 {
			purpose = arguments[0]
		}
		err = c.Preflight(purpose, os.Stdout)
	case verb == "up" && len(arguments) == 0:
		err = c.Up(ctx, os.Stdout)
	case verb == "down" && len(arguments) == 0:
		err = c.Down(os.Stdout)
	case verb == "status" && len(arguments) == 0:
		err = status(ctx, c)
	case verb == "load" && len(arguments) > 0:
		for _, archive := range arguments {
			if err = c.Load(ctx, archive); err != nil {
				break
			}
			fmt.Printf("cluster %s: %s is on both nodes\n", c.Name, archive)
		}
	case verb == "start" && len(arguments) == 1:
		err = c.StartComponent(ctx, arguments[0])
	case verb == "stop" && (len(arguments) == 1 || len(arguments) == 2):
		with := syscall.SIGTERM
		if len(arguments) == 2 {
			if with, err = parseSignal(arguments[1]); err != nil {
				break
			}
		}
		err = c.StopComponent(ctx, arguments[0], with)
	case verb == "env" && len(arguments) == 0:
		printEnvironment(c)
	default:
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	if err != nil {
		return fail(err)
	}
	return 0
}

func status(ctx context.Context, c *cluster.Cluster) error {
	status, err := c.Status(ctx)
	if err != nil {
		return err
	}
	state := "ready"
	if !status.Ready {
		state = status.Problem
	}
	fmt.Printf("cluster %s: %s\nfolder %s\n\n%-26s %6s %9s  %s\n", c.Name, state, c.Dir, "COMPONENT", "PID", "RESTARTS", "LAST EXIT")
	for _, component := range status.Components {
		fmt.Printf("%-26s %6d %9d  %s\n", component.Name, component.PID, component.Restarts, component.LastExit)
	}
	if !status.Ready {
		return fmt.Errorf("not ready: %s", status.Problem)
	}
	return nil
}

// printEnvironment wraps the programs in functions: a shell outside of the cluster's network cannot reach it.
func printEnvironment(c *cluster.Cluster) {
	self, err := os.Executable()
	if err != nil {
		self = "cluster"
	}
	call := fmt.Sprintf("%s --name %s --dir %s --bin %s", quote(self), c.Name, quote(c.Dir), quote(c.Bin))
	for _, verb := range []string{"kubectl", "helm"} {
		fmt.Printf("%s() { %s %s \"$@\"; }\n", verb, call, verb)
	}
	fmt.Printf("export KUBECONFIG=%s\n", quote(c.Kubeconfig()))
}

func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func parseSignal(name string) (syscall.Signal, error) {
	signals := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT}
	if with, ok := signals[strings.TrimPrefix(strings.ToUpper(name), "SIG")]; ok {
		return with, nil
	}
	return 0, fmt.Errorf("signal %q: use TERM, KILL, INT or QUIT", name)
}

func afterDashes(arguments []string) []string {
	if len(arguments) > 0 && arguments[0] == "--" {
		return arguments[1:]
	}
	return arguments
}

func interactive(command *exec.Cmd, err error) int {
	if err != nil {
		return fail(err)
	}
	// The terminal sends an interrupt to the program as well, which decides. (Ignored, it would be so there, too.)
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	return cluster.Interactive(command, os.Stdin, os.Stdout, os.Stderr)
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "cluster:", err)
	return 1
}
