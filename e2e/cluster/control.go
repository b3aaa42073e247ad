package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ComponentStatus is one process of a cluster, as the supervisor sees it.
type ComponentStatus struct {
	Name     string `json:"name"`
	PID      int    `json:"pid"` // on the cluster's side of its process namespace; 0 when not running
	Wanted   bool   `json:"wanted"`
	Restarts int    `json:"restarts"`
	LastExit string `json:"lastExit,omitempty"`
}

// Status is a cluster's state.
type Status struct {
	Ready      bool              `json:"ready"`
	Problem    string            `json:"problem,omitempty"`
	Components []ComponentStatus `json:"components"`
}

const controlSocket = "control.sock"

// serveControl answers on a socket in the cluster's folder, which works across network namespaces. The path of a socket
// is limited to 107 bytes and that of the folder is not, so it is reached through the folder's descriptor.
func (s *supervisor) serveControl() error {
	folder, err := os.Open(s.c.Dir)
	if err != nil {
		return err
	}
	path := fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), controlSocket)
	os.Remove(path)
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	if err := os.Chmod(s.c.path(controlSocket), 0o600); err != nil {
		return err
	}
	client, err := newAPIClient(s.c)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { s.answerStatus(w, client) })
	mux.HandleFunc("POST /start", func(w http.ResponseWriter, r *http.Request) {
		answer(w, s.startByName(r.FormValue("component")))
	})
	mux.HandleFunc("POST /stop", func(w http.ResponseWriter, r *http.Request) {
		number, err := strconv.Atoi(r.FormValue("signal"))
		if err == nil {
			err = s.stop(r.FormValue("component"), syscall.Signal(number))
		}
		answer(w, err)
	})
	go http.Serve(listener, mux)
	return nil
}

func answer(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

func (s *supervisor) startByName(name string) error {
	s.mu.Lock()
	p, known := s.processes[name]
	order := s.order
	s.mu.Unlock()
	if !known {
		return fmt.Errorf("no component %q: there are %v", name, order)
	}
	return s.start(p.component)
}

func (s *supervisor) answerStatus(w http.ResponseWriter, client *apiClient) {
	status := Status{}
	s.mu.Lock()
	if !s.booted {
		status.Problem = "still starting"
	}
	for _, name := range s.order {
		p := s.processes[name]
		status.Components = append(status.Components, ComponentStatus{Name: name, PID: p.pid, Wanted: p.wanted,
			Restarts: p.restarts, LastExit: p.lastExit})
		if p.pid == 0 && status.Problem == "" {
			status.Problem = name + " is not running"
		}
	}
	s.mu.Unlock()
	if status.Problem == "" {
		if err := client.nodesReady(); err != nil {
			status.Problem = err.Error()
		}
	}
	status.Ready = status.Problem == ""
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(status)
}

// control asks the supervisor.
func (c *Cluster) control(ctx context.Context, method, path string, form url.Values, into any) error {
	if c.supervisorPID() == 0 {
		return errNotUp
	}
	folder, err := os.Open(c.Dir)
	if err != nil {
		return err
	}
	defer folder.Close()
	transport := &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), controlSocket))
		}}
	request, err := http.NewRequestWithContext(ctx, method, "http://supervisor"+path+"?"+form.Encode(), nil)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		var text [512]byte
		n, _ := response.Body.Read(text[:])
		return fmt.Errorf("%s", strings.TrimSpace(string(text[:n])))
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(into)
}

// Status says how the cluster is. The error is errNotUp's text when there is none.
func (c *Cluster) Status(ctx context.Context) (*Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	status := &Status{}
	return status, c.control(ctx, http.MethodGet, "/status", nil, status)
}

// StopComponent ends "etcd", "kube-apiserver", "node-a/kubelet", ... with the signal and returns when it is gone. It is
// not started again until StartComponent.
func (c *Cluster) StopComponent(ctx context.Context, name string, with syscall.Signal) error {
	return c.control(ctx, http.MethodPost, "/stop", url.Values{"component": {name}, "signal": {strconv.Itoa(int(with))}}, nil)
}

// StartComponent starts a stopped component again. It does not wait for it to be ready.
func (c *Cluster) StartComponent(ctx context.Context, name string) error {
	return c.control(ctx, http.MethodPost, "/start", url.Values{"component": {name}}, nil)
}
