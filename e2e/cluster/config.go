package cluster

import "fmt"

// CgroupVersion is how the machine's cgroups are laid out.
type CgroupVersion int

const (
	CgroupV1 CgroupVersion = 1
	CgroupV2 CgroupVersion = 2
)

// kubeletConfig is the node's KubeletConfiguration. Paths are those of the node's mount namespace. The cgroupfs driver is
// used on both versions: it needs no systemd, and under systemd a folder of the cgroup root that systemd did not make is
// left alone by it.
func kubeletConfig(node Node, cgroup string, version CgroupVersion) string {
	failV1 := "" // Kubernetes refuses cgroup v1 unless told otherwise
	if version == CgroupV1 {
		failV1 = "failCgroupV1: false\n"
	}
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %[1]s
readOnlyPort: 0
healthzPort: 0
%[2]scgroupDriver: cgroupfs
cgroupRoot: /%[3]s/%[4]s
enforceNodeAllocatable: []
tlsCertFile: %[5]s/pki/%[4]s.crt
tlsPrivateKeyFile: %[5]s/pki/%[4]s.key
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %[5]s/pki/ca.crt}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
volumePluginDir: %[6]s/volumeplugins
makeIPTablesUtilChains: false
failSwapOn: false
evictionHard: {}
localStorageCapacityIsolation: false
resolvConf: %[5]s/resolv.conf
nodeStatusUpdateFrequency: 5s
shutdownGracePeriod: 0s
crashLoopBackOff: {maxContainerRestartPeriod: 1s}
`, node.Address, failV1, cgroup, node.Name, nodeClusterDir, KubeletDir)
}

// containerdConfig is the node's containerd configuration. restrict_oom_score_adj lets it run where the machine lacks
// CAP_SYS_RESOURCE and changes nothing elsewhere.
func containerdConfig(node Node) string {
	return fmt.Sprintf(`version = 2
root = "%[1]s/%[2]s/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/%[2]s/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%[3]s"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "%[1]s/%[2]s/cni"
`, nodeClusterDir, node.Name, pauseImage)
}

// networkConfig is the node's pod network: a bridge, and ordinary routing between the bridges of both nodes, without
// any address translation.
func networkConfig(node Node) string {
	return fmt.Sprintf(`{
  "cniVersion": "0.4.0",
  "name": "%[1]s",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "%[2]s",
      "isGateway": true,
      "ipMasq": false,
      "ipam": {
        "type": "host-local",
        "dataDir": "/run/cni",
        "ranges": [[{"subnet": "%[3]s"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    }
  ]
}
`, node.Name, node.bridge, node.subnet)
}

// auditPolicy notes who of Collage wrote what and when, with the pod's name, and what the agents asked for, which is a few
// requests in all. It notes nothing of anybody else: a benchmark, which runs as the administrator, does not pay for it.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    omitStages: [ResponseStarted]
    userGroups: ["system:serviceaccounts:collage-system"]
    verbs: [create, update, patch, delete, deletecollection]
  - level: Metadata
    users: ["system:serviceaccount:collage-system:collage-node"]
    verbs: [get, list, watch]
  - level: None
`

// component is one process of the cluster. A component of a node runs in the node's mount namespace.
type component struct {
	name string // "etcd", "node-a/kubelet"
	node string // empty for the control plane
	argv []string
}

func (c *Cluster) controlPlane() []component {
	kube := c.Bin + "/kube"
	etcdClient, etcdPeer := "http://127.0.0.1:22379", "http://127.0.0.1:22380"
	return []component{
		{name: "etcd", argv: []string{kube, "etcd", "--data-dir", c.path("etcd"), "--unsafe-no-fsync", "--log-level", "warn",
			"--listen-client-urls", etcdClient, "--advertise-client-urls", etcdClient,
			"--listen-peer-urls", etcdPeer, "--initial-advertise-peer-urls", etcdPeer,
			"--initial-cluster", "default=" + etcdPeer}},
		{name: "kube-apiserver", argv: []string{kube, "kube-apiserver", "--etcd-servers", etcdClient,
			"--bind-address", "0.0.0.0", "--secure-port", "443", "--advertise-address", ControlPlaneAddress,
			"--tls-cert-file", c.path("pki/apiserver.crt"), "--tls-private-key-file", c.path("pki/apiserver.key"),
			"--client-ca-file", c.path("pki/ca.crt"),
			"--service-account-key-file", c.path("pki/sa.pub"),
			"--service-account-signing-key-file", c.path("pki/sa.key"),
			"--service-account-issuer", "https://kubernetes.default.svc",
			"--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction",
			"--allow-privileged=true", "--service-cluster-ip-range", "10.96.0.0/16",
			"--kubelet-client-certificate", c.path("pki/apiserver-kubelet.crt"),
			"--kubelet-client-key", c.path("pki/apiserver-kubelet.key"),
			"--kubelet-certificate-authority", c.path("pki/ca.crt"),
			"--kubelet-preferred-address-types", "InternalIP",
			"--audit-policy-file", c.path("audit.yaml"), "--audit-log-path", c.AuditLog(),
			"--shutdown-delay-duration", "0s"}},
		// The client limits are raised so that benchmarks do not measure them.
		{name: "kube-controller-manager", argv: []string{kube, "kube-controller-manager",
			"--kubeconfig", c.path("kube-controller-manager.kubeconfig"), "--root-ca-file", c.path("pki/ca.crt"),
			"--service-account-private-key-file", c.path("pki/sa.key"), "--use-service-account-credentials",
			"--bind-address", "127.0.0.1", "--secure-port", "20257", "--leader-elect=false",
			"--node-monitor-period=1s",        // else a taint may stay for 5 seconds after the node is Ready
			"--node-monitor-grace-period=20s", // instead of 50, until a node that is silent is NotReady
			"--kube-api-qps=2000", "--kube-api-burst=4000"}},
		{name: "kube-scheduler", argv: []string{kube, "kube-scheduler",
			"--kubeconfig", c.path("kube-scheduler.kubeconfig"), "--bind-address", "127.0.0.1", "--secure-port", "20259",
			"--leader-elect=false", "--kube-api-qps=2000", "--kube-api-burst=4000"}},
	}
}

func containerdComponent(node Node) component {
	return component{name: node.Name + "/containerd", node: node.Name,
		argv: []string{"containerd", "--config", nodeClusterDir + "/" + node.Name + "/containerd.toml"}}
}

func kubeletComponent(node Node) component {
	in := nodeClusterDir + "/" + node.Name
	return component{name: node.Name + "/kubelet", node: node.Name,
		argv: []string{nodeBinDir + "/kube", "kubelet", "--config", in + "/kubelet.yaml", "--kubeconfig", in + "/node.kubeconfig",
			"--hostname-override", node.Name, "--node-ip", node.Address, "--root-dir", KubeletDir,
			"--cert-dir", in + "/pki"}}
}

// writeConfig makes every configuration file of the cluster.
func (c *Cluster) writeConfig(version CgroupVersion) error {
	files := map[string]string{"resolv.conf": "nameserver 127.0.0.1\n", "audit.yaml": auditPolicy}
	for _, node := range Nodes {
		files[node.Name+"/kubelet.yaml"] = kubeletConfig(node, c.cgroup(), version)
		files[node.Name+"/containerd.toml"] = containerdConfig(node)
		files[node.Name+"/cni/10-pods.conflist"] = networkConfig(node)
	}
	for name, content := range files {
		if err := writeFile(c.path(name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}
