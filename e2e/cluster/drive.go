package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Command prepares a program that sees the host's files and the cluster's network, with KUBECONFIG set and kube's
// kubectl and helm first in PATH.
func (c *Cluster) Command(ctx context.Context, argv ...string) (*exec.Cmd, error) {
	pid := c.supervisorPID()
	if pid == 0 {
		return nil, errNotUp
	}
	nsenter, err := lookProgram("nsenter")
	if err != nil {
		return nil, err
	}
	// nsenter finds the program by its own PATH, which is the one set below.
	command := exec.CommandContext(ctx, nsenter, append([]string{"--target", strconv.Itoa(pid), "--net", "--"}, argv...)...)
	command.Env = append(os.Environ(), c.Environment()...)
	return command, nil
}

// Environment holds the variables that a program in the cluster's network needs, as NAME=value.
func (c *Cluster) Environment() []string {
	return []string{"KUBECONFIG=" + c.Kubeconfig(), "PATH=" + c.Bin + ":" + searchPath, "COLLAGE_CLUSTER=" + c.Name}
}

// NodeCommand prepares a program that runs as if logged in to the node: in its mounts, processes and network.
func (c *Cluster) NodeCommand(ctx context.Context, node string, argv ...string) (*exec.Cmd, error) {
	if _, err := findNode(node); err != nil {
		return nil, err
	}
	pid := c.supervisorPID()
	if pid == 0 {
		return nil, errNotUp
	}
	enter, err := c.enterNode(node)
	if err != nil {
		return nil, err
	}
	nsenter := enter[0]
	arguments := append([]string{"--target", strconv.Itoa(pid), "--mount", "--net", "--pid", "--"}, enter...)
	command := exec.CommandContext(ctx, nsenter, append(arguments, argv...)...)
	command.Env = childEnvironment()
	return command, nil
}

// Kubectl runs kubectl as the administrator and returns what it printed. The error holds what it said.
func (c *Cluster) Kubectl(ctx context.Context, arguments ...string) (string, error) {
	return c.output(ctx, "", append([]string{"kubectl"}, arguments...)...)
}

// Apply gives a manifest to kubectl apply.
func (c *Cluster) Apply(ctx context.Context, manifest string) error {
	_, err := c.output(ctx, manifest, "kubectl", "apply", "-f", "-")
	return err
}

// Get decodes `kubectl get <arguments> -o json`.
func (c *Cluster) Get(ctx context.Context, into any, arguments ...string) error {
	text, err := c.Kubectl(ctx, append(append([]string{"get"}, arguments...), "-o", "json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), into)
}

// Helm runs helm as the administrator.
func (c *Cluster) Helm(ctx context.Context, arguments ...string) (string, error) {
	return c.output(ctx, "", append([]string{"helm"}, arguments...)...)
}

// NodeExec runs a program on the node and returns what it printed.
func (c *Cluster) NodeExec(ctx context.Context, node string, argv ...string) (string, error) {
	command, err := c.NodeCommand(ctx, node, argv...)
	if err != nil {
		return "", err
	}
	return runFor(command, node+": "+strings.Join(argv, " "))
}

// WaitFor polls the condition until it holds. The condition returns nil when it does and otherwise an error that says
// what is still missing, which ends up in the error of a wait that lasts longer than the limit.
func (c *Cluster) WaitFor(ctx context.Context, what string, limit time.Duration, condition func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		missing := condition()
		if missing == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited %s for %s: %w", limit, what, missing)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (c *Cluster) output(ctx context.Context, input string, argv ...string) (string, error) {
	command, err := c.Command(ctx, argv...)
	if err != nil {
		return "", err
	}
	if input != "" {
		command.Stdin = strings.NewReader(input)
	}
	return runFor(command, strings.Join(argv, " "))
}

// runFor returns the standard output; an error names the command and what it wrote to standard error.
func runFor(command *exec.Cmd, what string) (string, error) {
	var out, problems bytes.Buffer
	command.Stdout, command.Stderr = &out, &problems
	// A grandchild may keep the pipes open after the program was ended.
	command.WaitDelay = 5 * time.Second
	if err := command.Run(); err != nil {
		text := strings.TrimSpace(problems.String())
		if text == "" {
			text = strings.TrimSpace(out.String())
		}
		return out.String(), fmt.Errorf("%s: %w: %s", what, err, text)
	}
	return out.String(), nil
}

// Interactive runs the command with the caller's terminal and returns its exit code.
func Interactive(command *exec.Cmd, in io.Reader, out, problems io.Writer) int {
	command.Stdin, command.Stdout, command.Stderr = in, out, problems
	err := command.Run()
	if err == nil {
		return 0
	}
	if exit, ok := err.(*exec.ExitError); ok && exit.ExitCode() >= 0 {
		return exit.ExitCode()
	}
	fmt.Fprintln(problems, err)
	return 1
}
