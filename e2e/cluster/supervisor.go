package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// The supervisor is the init of the cluster's process namespace: it starts the components, adopts and reaps what they
// leave behind (container shims), restarts a component that dies, and answers on a socket. Its end ends the cluster.
type supervisor struct {
	c      *Cluster
	began  time.Time
	report *os.File // one JSON progressLine a line, until the cluster is ready

	mu        sync.Mutex // guards what follows, and makes "fork and register" one step for the reaper
	waiting   map[int]chan syscall.WaitStatus
	processes map[string]*process
	order     []string
	booted    bool
}

type process struct {
	component
	pid      int // in the cluster's process namespace; 0 when not running
	wanted   bool
	restarts int
	lastExit string
	exited   chan struct{} // closed when the current pid has ended
}

// progressLine is what the supervisor tells the process that started it.
type progressLine struct {
	Step    string   `json:"step,omitempty"`
	Ready   bool     `json:"ready,omitempty"`
	Failure *Failure `json:"failure,omitempty"`
}

// Programs of the supervisor's own making, chosen by argument zero of this very executable.
const (
	supervisorProgram = "collage-cluster-supervisor"
	nodeProgram       = "collage-cluster-node"
)

// HandleReexec must be called first in main, or TestMain, of each program that may call Up: the cluster's supervisor is
// that same executable under another name. It returns at once unless it is that, and then never.
func HandleReexec() {
	if len(os.Args) < 4 {
		return
	}
	c := &Cluster{Name: os.Args[1], Dir: os.Args[2], Bin: os.Args[3]}
	switch os.Args[0] {
	case supervisorProgram:
		os.Exit(superviseMain(c))
	case nodeProgram:
		os.Exit(nodeMain(c, os.Args[4]))
	}
}

// superviseMain runs with descriptor 3 to report to and descriptor 4 to be released by, as started by Up.
func superviseMain(c *Cluster) int {
	s := &supervisor{c: c, began: time.Now(), report: os.NewFile(3, "report"),
		waiting: map[int]chan syscall.WaitStatus{}, processes: map[string]*process{}}
	syscall.CloseOnExec(3)
	syscall.CloseOnExec(4)
	// The starter first writes down who we are. If it ends before, nobody would know of us.
	if n, _ := os.NewFile(4, "gate").Read(make([]byte, 1)); n != 1 {
		return 1
	}
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGINT)
	ending := make(chan os.Signal, 1)
	signal.Notify(ending, syscall.SIGTERM)
	go s.reap()

	if err := s.boot(); err != nil {
		failure, ok := err.(*Failure)
		if !ok {
			failure = &Failure{Problem: err.Error()}
		}
		s.tell(progressLine{Failure: failure})
		return 1
	}
	s.mu.Lock()
	s.booted = true
	s.mu.Unlock()
	s.tell(progressLine{Ready: true})
	s.report.Close()
	<-ending
	return 0
}

// tell reports to the starter. Before the cluster is ready its end is ours too: nobody would learn of the outcome.
func (s *supervisor) tell(line progressLine) {
	content, _ := json.Marshal(line)
	if _, err := s.report.Write(append(content, '\n')); err != nil {
		os.Exit(1)
	}
}

func (s *supervisor) step(format string, arguments ...any) {
	s.tell(progressLine{Step: fmt.Sprintf(format, arguments...)})
}

// reap waits for every child, adopted ones included, and hands each status to who waits for it.
func (s *supervisor) reap() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	for {
		s.mu.Lock()
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if waiter, ok := s.waiting[pid]; ok && err == nil {
			waiter <- status
			delete(s.waiting, pid)
		}
		s.mu.Unlock()
		if err == nil && pid != 0 || err == syscall.EINTR {
			continue
		}
		select {
		case <-children:
		case <-time.After(time.Second): // a child that ended before Notify took effect
		}
	}
}

// signal sends to a child unless it has been reaped, so never to a later process with its id.
func (s *supervisor) signal(pid int, with syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, alive := s.waiting[pid]; !alive {
		return nil
	}
	return syscall.Kill(pid, with)
}

// spawn starts a child whose output goes to the log. The caller holds s.mu.
func (s *supervisor) spawn(path string, argv []string, log *os.File, attributes *syscall.SysProcAttr, extra ...uintptr) (
	int, chan syscall.WaitStatus, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, nil, err
	}
	defer null.Close()
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Dir: "/", Env: childEnvironment(), Sys: attributes,
		Files: append([]uintptr{null.Fd(), log.Fd(), log.Fd()}, extra...)})
	if err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	done := make(chan syscall.WaitStatus, 1)
	s.waiting[pid] = done
	return pid, done, nil
}

// run executes one short program and waits for it. Its output goes to the log of the setup.
func (s *supervisor) run(argv ...string) error {
	log, err := s.openLog("setup")
	if err != nil {
		return err
	}
	defer log.Close()
	path, err := lookProgram(argv[0])
	if err != nil {
		return err
	}
	s.mu.Lock()
	_, done, err := s.spawn(path, argv, log, nil)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if status := <-done; status != 0 {
		return &Failure{Problem: fmt.Sprintf("%v: %s", argv, describeExit(status)), Log: s.c.LogPath("setup")}
	}
	return nil
}

// start runs a component, which is restarted when it ends by itself. The caller holds no lock.
func (s *supervisor) start(what component) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, known := s.processes[what.name]
	if !known {
		p = &process{component: what}
		s.processes[what.name] = p
		s.order = append(s.order, what.name)
	}
	if p.pid != 0 {
		return nil
	}
	p.wanted = true
	return s.launch(p)
}

// launch needs s.mu held.
func (s *supervisor) launch(p *process) error {
	log, err := s.openLog(p.name)
	if err != nil {
		return err
	}
	defer log.Close()
	argv := p.argv
	if p.node != "" {
		enter, err := s.c.enterNode(p.node)
		if err != nil {
			return err
		}
		argv = append(enter, argv...)
	}
	path, err := lookProgram(argv[0])
	if err != nil {
		return err
	}
	pid, done, err := s.spawn(path, argv, log, &syscall.SysProcAttr{Setsid: true})
	if err != nil {
		return err
	}
	p.pid, p.exited = pid, make(chan struct{})
	go s.watch(p, done, p.exited)
	return nil
}

// watch takes note of a component's end and restarts it, a second later, if it was not asked to end. While booting
// nothing is restarted: the first error is the one to show.
func (s *supervisor) watch(p *process, done chan syscall.WaitStatus, exited chan struct{}) {
	status := <-done
	s.mu.Lock()
	p.pid, p.lastExit = 0, describeExit(status)
	restart := p.wanted && s.booted
	close(exited)
	s.mu.Unlock()
	if !restart {
		return
	}
	time.Sleep(time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.wanted && p.pid == 0 {
		p.restarts++
		if err := s.launch(p); err != nil {
			p.lastExit = err.Error()
		}
	}
}

// stop ends a component with the signal and waits for it. It stays stopped until started again.
func (s *supervisor) stop(name string, with syscall.Signal) error {
	s.mu.Lock()
	p, known := s.processes[name]
	if !known {
		s.mu.Unlock()
		return fmt.Errorf("no component %q: there are %v", name, s.order)
	}
	p.wanted = false
	pid, exited := p.pid, p.exited
	s.mu.Unlock()
	if pid == 0 {
		return nil
	}
	for _, attempt := range []syscall.Signal{with, syscall.SIGKILL} {
		if err := s.signal(pid, attempt); err != nil {
			return err
		}
		select {
		case <-exited:
			return nil
		case <-time.After(15 * time.Second):
		}
	}
	return fmt.Errorf("%s (process %d) does not end", name, pid)
}

// dead returns a component that should run and does not.
func (s *supervisor) dead() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.order {
		if p := s.processes[name]; p.wanted && p.pid == 0 {
			return p
		}
	}
	return nil
}

func (s *supervisor) openLog(name string) (*os.File, error) {
	path := s.c.LogPath(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND|syscall.O_CLOEXEC, 0o644)
}

func describeExit(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "ended by " + status.Signal().String()
	}
	return fmt.Sprintf("ended with exit code %d", status.ExitStatus())
}
