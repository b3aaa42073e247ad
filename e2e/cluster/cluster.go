// Package cluster boots, drives and removes a real two-node Kubernetes on one machine.
//
// The whole cluster lives in a network, mount and process namespace of its own, held by one supervisor process that is
// the init of that process namespace. Nothing of the host is touched: no address, port, route, firewall rule, sysctl or
// mount. When the supervisor ends, for whatever reason, the kernel ends every process of the cluster and drops every
// mount and address with it. What is left to remove by hand is a folder, a few cgroups and stray loop devices, and Down
// does that, also after a crash at any point.
//
// Each node has a mount namespace of its own inside, so that /var/lib/kubelet, /var/lib/collage and /run are different
// folders on each node, as they are on two machines, while /srv/collage-share is the same file system on both.
package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// Facts of every cluster. The addresses exist only inside its network namespace.
const (
	ServiceAddress      = "10.96.0.1" // of the Service "kubernetes"
	ControlPlaneAddress = "10.99.0.1" // of the API server
	KubeletDir          = "/var/lib/kubelet"
	StateDir            = "/var/lib/collage"   // on a node: its own folder, behind it <dir>/<node>/lib
	ShareDir            = "/srv/collage-share" // on a node: one XFS with reflinks that all nodes share
	BusyboxImage        = "localhost/busybox:local"
	pauseImage          = "localhost/pause:local"

	// In a node's mount namespace the cluster's folder and the programs are found here, wherever they are on the host.
	nodeClusterDir = "/run/cluster"
	nodeBinDir     = "/run/cluster-bin"

	shareBytes = 8 << 30 // sparse: it takes what is written
)

// Node is one of the cluster's machines.
type Node struct {
	Name    string
	Address string
	bridge  string
	subnet  string
}

// Nodes are the machines of every cluster.
var Nodes = []Node{
	{Name: "node-a", Address: "10.99.0.11", bridge: "br-a", subnet: "10.245.1.0/24"},
	{Name: "node-b", Address: "10.99.0.12", bridge: "br-b", subnet: "10.245.2.0/24"},
}

// Cluster names one cluster, which may be up or not. It is safe for concurrent use.
type Cluster struct {
	Name string // also part of its cgroups' names: unique on the machine
	Dir  string // everything the cluster writes; may be removed by Down
	Bin  string // holds kube, kubectl and helm
}

var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// Open describes the cluster of that name in the repository around the working directory. An empty dir or bin means the
// usual place under build/e2e. Nothing is read or started.
func Open(name, dir, bin string) (*Cluster, error) {
	if !namePattern.MatchString(name) {
		return nil, fmt.Errorf("cluster name %q: use 1 to 32 small letters, digits and dashes", name)
	}
	if dir == "" || bin == "" {
		root, err := RepositoryRoot()
		if err != nil {
			return nil, err
		}
		if dir == "" {
			dir = filepath.Join(root, "build", "e2e", "clusters", name)
		}
		if bin == "" {
			bin = filepath.Join(root, "build", "e2e", "bin")
		}
	}
	c := &Cluster{Name: name}
	var err error
	if c.Dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if c.Bin, err = filepath.Abs(bin); err != nil {
		return nil, err
	}
	return c, nil
}

// RepositoryRoot finds the folder that holds e2e/kube/go.mod, from the working directory upwards.
func RepositoryRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := start; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "e2e", "kube", "go.mod")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s is not inside the repository: change into it, or give --dir and --bin", start)
		}
	}
}

// Kubeconfig is the path of the administrator's kubeconfig. It works for processes in the cluster's network namespace.
func (c *Cluster) Kubeconfig() string { return c.path("admin.kubeconfig") }

// LogPath is where a component ("kube-apiserver", "node-a/kubelet", ...) writes.
func (c *Cluster) LogPath(component string) string { return c.path("log", component+".log") }

// AuditLog is where the API server notes each write of Collage's pods, and what the agents read, a JSON object a line
// (audit.k8s.io/v1 Event).
func (c *Cluster) AuditLog() string { return c.path("log", "audit.log") }

func (c *Cluster) path(elements ...string) string {
	return filepath.Join(append([]string{c.Dir}, elements...)...)
}

func (c *Cluster) cgroup() string { return "collage-" + c.Name }

func findNode(name string) (Node, error) {
	for _, node := range Nodes {
		if node.Name == name {
			return node, nil
		}
	}
	return Node{}, fmt.Errorf("no node %q: there are node-a and node-b", name)
}

// Failure is an error that says where to look and what to do.
type Failure struct {
	Problem string
	Log     string // path of the log to read; may be empty
	Remedy  string
}

func (f *Failure) Error() string {
	text := f.Problem
	if f.Remedy != "" {
		text += "\n  remedy: " + f.Remedy
	}
	if tail := tailOf(f.Log, 15); tail != "" {
		text += fmt.Sprintf("\n  end of %s:\n%s", f.Log, tail)
	}
	return text
}

var errNotUp = errors.New("the cluster is not up")
