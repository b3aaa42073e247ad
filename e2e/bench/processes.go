package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"collage/e2e/cluster"
)

const operatorMetrics = "127.0.0.1:18080"

// agentMetrics is where the agent of a node serves its metrics: all nodes share one network.
func agentMetrics(i int) string { return fmt.Sprintf("127.0.0.1:%d", 18081+i) }

// process is a running program whose output goes to a log.
type process struct {
	command *exec.Cmd
	pid     int // of the program itself, which nsenter may have forked
	log     string
	exited  chan struct{}
	err     error // once exited
}

// start runs the command. It ends with the bench, however that ends. When ready is given, start waits for that word in a
// line of its output.
func start(command *exec.Cmd, log, ready string) (*process, error) {
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	output, input, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	command.Stdout, command.Stderr = input, input
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		input.Close()
		output.Close()
		return nil, err
	}
	input.Close()
	p := &process{command: command, pid: command.Process.Pid, log: log, exited: make(chan struct{})}
	spoken := make(chan struct{})
	copied := make(chan struct{})
	into, err := os.OpenFile(log, os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		command.Process.Kill()
	}
	go func() {
		defer close(copied)
		defer output.Close()
		defer into.Close()
		var once sync.Once
		lines := bufio.NewReaderSize(output, 64<<10)
		for {
			line, err := lines.ReadString('\n')
			into.WriteString(line)
			if ready != "" && strings.Contains(line, ready) {
				once.Do(func() { close(spoken) })
			}
			if err != nil {
				return
			}
		}
	}()
	go func() {
		p.err = command.Wait()
		<-copied
		close(p.exited)
	}()
	if ready == "" {
		return p, nil
	}
	select {
	case <-spoken:
		return p, nil
	case <-p.exited:
		return nil, fmt.Errorf("%s ended at once: %v; see %s", filepath.Base(log), p.err, log)
	case <-time.After(time.Minute):
		p.stop()
		return nil, fmt.Errorf("%s did not say %q within a minute; see %s", filepath.Base(log), ready, log)
	}
}

// stop asks the program to end and waits for it.
func (p *process) stop() {
	syscall.Kill(p.pid, syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(30 * time.Second):
		syscall.Kill(p.pid, syscall.SIGKILL)
		<-p.exited
	}
}

// running is an error when the program has ended.
func (p *process) running() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s ended in the middle: %v; see %s", filepath.Base(p.log), p.err, p.log)
	default:
		return nil
	}
}

// child is the only child of a process: nsenter forks to enter a process namespace.
func child(pid int) (int, error) {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		if err != nil {
			return 0, err
		}
		if fields := strings.Fields(string(content)); len(fields) == 1 {
			return strconv.Atoi(fields[0])
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("process %d has the children %q, expected one", pid, content)
		}
	}
}

// memory reads a line of /proc/PID/status ("VmRSS", "RssAnon") in MiB.
func memory(pid int, what string) (float64, error) {
	kib, found := amount(fmt.Sprintf("/proc/%d/status", pid), what+":")
	if !found {
		return 0, fmt.Errorf("process %d has no %s", pid, what)
	}
	return kib / 1024, nil
}

// amount finds the line "NAME  NUMBER kB" in a file of /proc.
func amount(path, name string) (kib float64, found bool) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == name {
			return parsed(fields[1]), true
		}
	}
	return 0, false
}

func parsed(text string) float64 {
	value, _ := strconv.ParseFloat(text, 64)
	return value
}

// processorTime is what a process has used of the processors so far.
func processorTime(pid int) (time.Duration, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may hold anything; the fields after it are numbered from 3 (proc(5)).
	fields := strings.Fields(string(content)[strings.LastIndexByte(string(content), ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("process %d: unexpected stat", pid)
	}
	ticks := 0.0
	for _, field := range fields[11:13] { // utime and stime, in hundredths of a second
		value, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return 0, err
		}
		ticks += value
	}
	return time.Duration(ticks * float64(10*time.Millisecond)), nil
}

// What both candidates use: its processor time is told beside theirs.
const (
	apiServer         = "apiserver"
	controllerManager = "controller_manager"
	etcd              = "etcd"
)

var controlPlane = map[string]string{"kube-apiserver": apiServer, "kube-controller-manager": controllerManager, "etcd": etcd}

// controlPlaneTime is the processor time of this cluster's control plane so far, by component.
func (p *programs) controlPlaneTime() (map[string]time.Duration, error) {
	used := map[string]time.Duration{}
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, entry := range processes {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		content, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err != nil || !strings.Contains(string(content), p.cluster.Dir+"/") {
			continue
		}
		// Each is `kube COMPONENT ...`, with paths of this cluster among its arguments.
		words := strings.Split(string(content), "\x00")
		if len(words) < 2 || controlPlane[words[1]] == "" {
			continue
		}
		if time, err := processorTime(pid); err == nil {
			used[controlPlane[words[1]]] += time
		}
	}
	if len(used) != len(controlPlane) {
		return nil, fmt.Errorf("found the processes %v of the control plane, expected %d", used, len(controlPlane))
	}
	return used, nil
}

// settled waits until the process has used hardly any processor time for three seconds.
func settled(ctx context.Context, p *process, limit time.Duration) error {
	last, since := time.Duration(-1), time.Now()
	for begun := time.Now(); time.Since(begun) < limit; {
		if err := p.running(); err != nil {
			return err
		}
		used, err := processorTime(p.pid)
		if err != nil {
			return err
		}
		if used-last > 50*time.Millisecond || last < 0 {
			last, since = used, time.Now()
		}
		if time.Since(since) >= 3*time.Second {
			return nil
		}
		if err := sleep(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s is still busy after %s with nothing to do", filepath.Base(p.log), limit)
}

// programs are what is measured, and where.
type programs struct {
	cluster *cluster.Cluster
	bin     string // holds collage and collage-mount
	floor   string
	logs    string
}

// startAgents runs `collage node` on each node as the DaemonSet would: the node's mounts, its kubelet, its /var/lib/collage.
func (p *programs) startAgents(ctx context.Context) ([]*process, error) {
	var agents []*process
	for i, node := range cluster.Nodes {
		// A node sees the host's programs and libraries, but its own /var/lib.
		folder := filepath.Join(p.cluster.Dir, node.Name, "lib", "bench")
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return agents, err
		}
		for _, name := range []string{"collage", "collage-mount"} {
			content, err := os.ReadFile(filepath.Join(p.bin, name))
			if err != nil {
				return agents, err
			}
			if err := os.WriteFile(filepath.Join(folder, name), content, 0o755); err != nil {
				return agents, err
			}
		}
		kubeconfig, err := os.ReadFile(p.cluster.Kubeconfig())
		if err != nil {
			return agents, err
		}
		if err := os.WriteFile(filepath.Join(folder, "kubeconfig"), kubeconfig, 0o600); err != nil {
			return agents, err
		}
		at := cluster.StateDir + "/bench"
		command, err := p.cluster.NodeCommand(ctx, node.Name, at+"/collage", "node", "--node-name", node.Name,
			"--kubeconfig", at+"/kubeconfig", "--mount-helper", at+"/collage-mount", "--listen", agentMetrics(i))
		if err != nil {
			return agents, err
		}
		agent, err := start(command, filepath.Join(p.logs, node.Name+".log"), "connected to the API server")
		if err != nil {
			return agents, err
		}
		agents = append(agents, agent)
		if agent.pid, err = child(agent.command.Process.Pid); err != nil {
			return agents, err
		}
	}
	return agents, nil
}

// startOperator runs `collage operator` in the cluster's network, and returns once it leads.
func (p *programs) startOperator(ctx context.Context) (*process, error) {
	command, err := p.cluster.Command(ctx, filepath.Join(p.bin, "collage"), "operator", "--kubeconfig", p.cluster.Kubeconfig(),
		"--namespace", system, "--listen", operatorMetrics)
	if err != nil {
		return nil, err
	}
	return start(command, filepath.Join(p.logs, "operator.log"), "leading")
}

// startFloor runs the floor, and returns once its caches are whole.
func (p *programs) startFloor(ctx context.Context) (*process, error) {
	command, err := p.cluster.Command(ctx, p.floor, "--kubeconfig", p.cluster.Kubeconfig(), "--driver", floorDriver)
	if err != nil {
		return nil, err
	}
	return start(command, filepath.Join(p.logs, "floor.log"), "ready")
}
