// The quickstart command shows the main job on a cluster of its own: Collage is installed with Helm, two backends and a
// workload are applied, and the workload's volume follows its pod from one node to the other.
package main

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"collage/e2e/cluster"
)

//go:embed backends.yaml
var backends string

//go:embed workload.yaml
var workload string

const (
	release   = "collage"
	namespace = "collage-system"
	demo      = "demo"
	patience  = 2 * time.Minute
)

func main() {
	cluster.HandleReexec()
	chart := flag.String("chart", "helm/collage", "folder of the chart")
	images := flag.String("images", "", "docker-archives of the images localhost/collage:dev and localhost/collage-node:dev, with commas between")
	revision := flag.String("revision", "", "of the images: another one restarts the pods")
	name := flag.String("name", "quickstart", "of the cluster")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	show := &tour{ctx: ctx, began: time.Now(), chart: *chart, images: *images, revision: *revision}
	if err := show.run(*name); err != nil {
		fmt.Fprintf(os.Stderr, "\nquickstart: %v\n", err)
		if show.cluster != nil {
			fmt.Fprintf(os.Stderr, "  look closer: eval \"$(build/e2e/bin/cluster --name %s env)\"; kubectl -n %s get pods; kubectl -n %s logs deploy/%s-operator\n", *name, namespace, namespace, release)
			fmt.Fprintln(os.Stderr, "  start over:  make quickstart-down && make quickstart")
		}
		os.Exit(1)
	}
}

// A tour is one run of the quickstart.
type tour struct {
	ctx      context.Context
	cluster  *cluster.Cluster
	began    time.Time
	step     int
	chart    string
	images   string
	revision string
}

func (t *tour) run(name string) error {
	var err error
	if t.cluster, err = cluster.Open(name, "", ""); err != nil {
		return err
	}
	for _, step := range []func() error{t.boot, t.install, t.backends, t.workload, t.move, t.picture} {
		if err := step(); err != nil {
			return err
		}
	}
	t.goOn(name)
	return nil
}

func (t *tour) title(format string, arguments ...any) {
	t.step++
	fmt.Printf("\n== %d/6 %s  (%.0f s)\n", t.step, fmt.Sprintf(format, arguments...), time.Since(t.began).Seconds())
}

func (t *tour) say(format string, arguments ...any) { fmt.Printf("   "+format+"\n", arguments...) }

func (t *tour) kubectl(arguments ...string) (string, error) {
	out, err := t.cluster.Kubectl(t.ctx, arguments...)
	return strings.TrimSpace(out), err
}

// waitFor shows what is still missing every few seconds.
func (t *tour) waitFor(what string, condition func() error) error {
	told := time.Now()
	return t.cluster.WaitFor(t.ctx, what, patience, func() error {
		missing := condition()
		if missing != nil && time.Since(told) > 5*time.Second {
			told = time.Now()
			t.say("waiting for %s: %v", what, missing)
		}
		return missing
	})
}

func (t *tour) boot() error {
	t.title("boot Kubernetes: two nodes, in namespaces of their own")
	if err := t.cluster.Up(t.ctx, os.Stdout); err != nil {
		return err
	}
	t.say("import the images into both nodes")
	for _, archive := range strings.Split(t.images, ",") {
		if err := t.cluster.Load(t.ctx, archive); err != nil {
			return err
		}
	}
	return nil
}

func (t *tour) install() error {
	t.title("install Collage with Helm")
	// Helm makes CRDs once and never changes them: this does.
	if _, err := t.kubectl("apply", "--server-side", "--force-conflicts", "-f", t.chart+"/crds"); err != nil {
		return err
	}
	_, err := t.cluster.Helm(t.ctx, "upgrade", "--install", release, t.chart, "--namespace", namespace, "--create-namespace",
		"--set", "image.repository=localhost/collage,image.tag=dev,image.pullPolicy=Never",
		"--set-string", "controller.podAnnotations.revision="+t.revision, "--set-string", "node.podAnnotations.revision="+t.revision,
		"--set", "node.directories={/var/lib/collage/volumes,/srv/collage-share}", "--wait", "--timeout", "3m")
	if err != nil {
		return err
	}
	out, err := t.kubectl("-n", namespace, "get", "pods", "-o", "wide", "--no-headers")
	for _, line := range strings.Split(out, "\n") {
		columns := strings.Fields(line)
		if len(columns) > 6 {
			t.say("%-40s %-8s on %s", columns[0], columns[2], columns[6])
		}
	}
	return err
}

func (t *tour) backends() error {
	t.title("apply two StorageBackends: disk (each node's own) and share (a directory that both nodes see)")
	if err := t.cluster.Apply(t.ctx, backends); err != nil {
		return err
	}
	for _, name := range []string{"disk", "share"} {
		err := t.waitFor("StorageBackend "+name+" to be Ready", func() error {
			condition, err := t.kubectl("get", "sb", name, "-o", `jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status} {.reason}: {.message}{end}`)
			if err != nil || strings.HasPrefix(condition, "True") {
				return err
			}
			return fmt.Errorf("not Ready, %s", condition)
		})
		if err != nil {
			return err
		}
	}
	out, err := t.kubectl("get", "sb")
	t.indent(out)
	return err
}

// nodeOf answers where the workload is now, "" before its first start.
func (t *tour) nodeOf() string {
	node, _ := t.kubectl("-n", demo, "get", "statefulset", "ledger", "-o", `jsonpath={.spec.template.spec.nodeSelector.kubernetes\.io/hostname}`)
	return node
}

func (t *tour) workload() error {
	t.title("apply claims, a pod and a StatefulSet")
	node := t.nodeOf()
	if node == "" {
		node = "node-a"
	}
	if err := t.cluster.Apply(t.ctx, strings.ReplaceAll(workload, "NODE}", node+"}")); err != nil {
		return err
	}
	if err := t.running("scratch", ""); err != nil {
		return err
	}
	if err := t.running("ledger-0", node); err != nil {
		return err
	}
	sum, err := t.checksum("")
	if err != nil {
		return err
	}
	t.say("ledger-0 runs on %s; its data has the checksum %s...", node, sum[:16])
	return nil
}

// running waits until a pod runs, on that node if one is given.
func (t *tour) running(pod, node string) error {
	return t.waitFor("pod "+pod+" to run", func() error {
		state, err := t.kubectl("-n", demo, "get", "pod", pod, "-o", `jsonpath={.status.phase} {.spec.nodeName} {.metadata.deletionTimestamp} {.status.containerStatuses[0].ready}`)
		if err != nil {
			return err
		}
		if strings.HasPrefix(state, "Running "+node) && strings.HasSuffix(state, "  true") {
			return nil
		}
		if event, _ := t.kubectl("-n", demo, "get", "events", "--field-selector", "type=Warning,involvedObject.name="+pod, "-o", `jsonpath={.items[-1:].message}`); event != "" {
			return fmt.Errorf("it is %s; last warning: %s", state, event)
		}
		return fmt.Errorf("it is %s", state)
	})
}

var summed = regexp.MustCompile(`(?m)^(read|damaged) ([0-9a-f]{64})$`)

// checksum reads what the pod says of its data; an error unless it equals `expected`, when that is given.
func (t *tour) checksum(expected string) (string, error) {
	var sum string
	err := t.waitFor("ledger-0 to check its data", func() error {
		log, err := t.kubectl("-n", demo, "logs", "ledger-0")
		if err != nil {
			return err
		}
		found := summed.FindStringSubmatch(log)
		if found == nil {
			return fmt.Errorf("its log has no checksum yet")
		}
		sum = found[1] + " " + found[2]
		return nil
	})
	if err != nil {
		return "", err
	}
	verdict, digest, _ := strings.Cut(sum, " ")
	if verdict == "damaged" || (expected != "" && digest != expected) {
		return "", fmt.Errorf("the data changed: expected %s, %s %s", expected, verdict, digest)
	}
	return digest, nil
}

func (t *tour) move() error {
	from := t.nodeOf()
	to := map[string]string{"node-a": "node-b", "node-b": "node-a"}[from]
	t.title("move ledger-0 from %s to %s: its volume follows", from, to)
	before, err := t.checksum("")
	if err != nil {
		return err
	}
	volume, err := t.kubectl("-n", demo, "get", "pvc", "data-ledger-0", "-o", "jsonpath={.spec.volumeName}")
	if err != nil {
		return err
	}
	t.say("%-10s %s, attached to %s", "volume", volume, from)
	began := time.Now()
	at := func(what, detail string) { t.say("%-10s %-44s +%.1f s", what, detail, time.Since(began).Seconds()) }
	patch := fmt.Sprintf(`{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/hostname":%q}}}}}`, to)
	if _, err := t.kubectl("-n", demo, "patch", "statefulset", "ledger", "-p", patch); err != nil {
		return err
	}
	attachments := func() (map[string]string, error) {
		out, err := t.kubectl("get", "volumeattachments", "-o", `jsonpath={range .items[*]}{.spec.source.persistentVolumeName} {.spec.nodeName} {.status.attached}{"\n"}{end}`)
		found := map[string]string{}
		for _, line := range strings.Split(out, "\n") {
			if columns := strings.Fields(line); len(columns) == 3 && columns[0] == volume {
				found[columns[1]] = columns[2]
			}
		}
		return found, err
	}
	err = t.waitFor("the volume to leave "+from, func() error {
		found, err := attachments()
		if _, held := found[from]; err == nil && held {
			return fmt.Errorf("it is still attached there")
		}
		return err
	})
	if err != nil {
		return err
	}
	at("detached", "from "+from)
	err = t.waitFor("the volume to be attached to "+to, func() error {
		found, err := attachments()
		if err == nil && found[to] != "true" {
			return fmt.Errorf("it is not attached there yet")
		}
		return err
	})
	if err != nil {
		return err
	}
	at("attached", "to "+to)
	if err := t.running("ledger-0", to); err != nil {
		return err
	}
	at("mounted", "ledger-0 runs on "+to)
	after, err := t.checksum(before)
	if err != nil {
		return err
	}
	at("read back", "32 MiB with the same checksum "+after[:16]+"...")
	return nil
}

func (t *tour) picture() error {
	t.title("the cluster now")
	out, err := t.kubectl("-n", demo, "get", "sb,sc,pvc,pv,volumeattachments,pods")
	t.indent(out)
	return err
}

func (t *tour) indent(text string) { fmt.Println("   " + strings.ReplaceAll(text, "\n", "\n   ")) }

func (t *tour) goOn(name string) {
	fmt.Printf(`
Done in %.0f s. The cluster goes on running. To look around:

   eval "$(build/e2e/bin/cluster --name %s env)"      kubectl and helm speak to this cluster
   kubectl get sb -o wide                             the backends
   kubectl describe sb share                          conditions: what a backend needs, if anything
   kubectl -n %s get events                         what happened to the claims
   make quickstart                                    moves ledger-0 back again
   make quickstart-down                               removes all of it
`, time.Since(t.began).Seconds(), name, demo)
}
