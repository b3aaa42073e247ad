package suite

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"collage/e2e/cluster"
)

// These tests stop and end the operator that leads, and the API server, so they do not run beside others.

// leader answers the pod that holds the Lease.
func leader() (string, error) {
	holder, err := k8s.Kubectl(ctx, "-n", system, "get", "lease", "collage-operator", "-o", "jsonpath={.spec.holderIdentity}")
	if err == nil && holder == "" {
		err = fmt.Errorf("nobody holds the Lease")
	}
	pod, _, _ := strings.Cut(holder, "_")
	return pod, err
}

// anotherLeads is nil once a pod other than `pod` holds the Lease.
func anotherLeads(pod string) error {
	now, err := leader()
	if err == nil && now == pod {
		err = fmt.Errorf("%s leads still", pod)
	}
	return err
}

// processOf answers the id of the operator's process in a pod, in the process namespace that all nodes share.
func processOf(t *testing.T, pod string) string {
	t.Helper()
	out, err := k8s.NodeExec(ctx, "node-a", "sh", "-c", `
		for p in /proc/[0-9]*; do
			line=$(tr '\0' ' ' 2>/dev/null < $p/cmdline) || continue
			case "$line" in "/usr/bin/collage operator "*"--pod-name=`+pod+` "*) echo ${p#/proc/} ;; esac
		done`)
	must(t, err)
	found := strings.Fields(out)
	if len(found) != 1 {
		t.Fatalf("%d processes of pod %s run, expected one", len(found), pod)
	}
	return found[0]
}

func send(t *testing.T, signal, process string) {
	t.Helper()
	_, err := k8s.NodeExec(ctx, "node-a", "kill", "-"+signal, process)
	must(t, err)
}

// bothReady waits until two operators run and one leads.
func bothReady(t *testing.T) string {
	t.Helper()
	kubectl(t, "-n", system, "rollout", "status", "deployment", "--timeout=2m")
	var pod string
	eventually(t, "a leader", func() (err error) {
		if pod, err = leader(); err != nil {
			return err
		}
		// A release that was uninstalled took the right to give the Lease back with it: its holder is gone then.
		going, err := k8s.Kubectl(ctx, "-n", system, "get", "pod", pod, "-o", "jsonpath={.metadata.deletionTimestamp}")
		if err == nil && going != "" {
			err = fmt.Errorf("%s is on its way out", pod)
		}
		return err
	})
	return pod
}

// restarts says how often the container of a pod was started again, and whether it is ready. What "ready" says is of the process
// before, until kubelet has noticed its end.
func restarts(t *testing.T, pod string) (count int, ready bool) {
	t.Helper()
	out := kubectl(t, "-n", system, "get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}")
	if _, err := fmt.Sscan(out, &count, &ready); err != nil {
		t.Fatalf("the state of pod %s is %q: %v", pod, out, err)
	}
	return count, ready
}

// write is a write of Collage that the API server carried out or refused.
type write struct {
	pod, verb, what string
	at              time.Time
}

// writes reads the API server's audit log.
func writes(t *testing.T) []write {
	t.Helper()
	file, err := os.Open(k8s.AuditLog())
	must(t, err)
	defer file.Close()
	var found []write
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event struct {
			Verb, RequestURI         string
			RequestReceivedTimestamp time.Time
			User                     struct{ Extra map[string][]string }
		}
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			continue // the last line may be half written
		}
		if event.Verb == "get" || event.Verb == "list" || event.Verb == "watch" {
			continue // by an agent
		}
		pod := strings.Join(event.User.Extra["authentication.kubernetes.io/pod-name"], "")
		found = append(found, write{pod, event.Verb, event.RequestURI, event.RequestReceivedTimestamp})
	}
	must(t, lines.Err())
	return found
}

// someBound is nil once the first claims are Bound and others, as a rule, are not yet.
func someBound(namespace string) error {
	out, err := k8s.Kubectl(ctx, "-n", namespace, "get", "pvc", "-o", "jsonpath={.items[*].status.phase}")
	if err == nil && strings.Count(out, "Bound") < 3 {
		err = fmt.Errorf("they are %s", out)
	}
	return err
}

func someClaims(namespace, prefix string, count int) string {
	manifest := strings.Builder{}
	for i := range count {
		manifest.WriteString(claim{name: fmt.Sprintf("%s-%d", prefix, i), class: "share-now", size: "1Mi"}.manifest(namespace))
	}
	return manifest.String()
}

// Every call of a driver of these backends is a write to a StorageNode, so the audit log shows those as well.
func TestALeaderThatWasStoppedAndContinuedDoesNothing(t *testing.T) {
	const early, late = 40, 20
	namespace := space(t)
	before := onStorage(t, "node-a", cluster.ShareDir)
	old := bothReady(t)
	process := processOf(t, old)
	began := time.Now()
	apply(t, someClaims(namespace, "early", early))
	eventually(t, "the first claims to be Bound", func() error { return someBound(namespace) })
	send(t, "STOP", process)
	stopped := time.Now()
	defer k8s.NodeExec(ctx, "node-a", "kill", "-CONT", process) // whatever fails below
	apply(t, someClaims(namespace, "late", late)+
		claim{name: "mounted", class: "share", size: "32Mi"}.manifest(namespace)+
		pod{name: "mounted", claim: "mounted", script: "touch /data/file"}.manifest(namespace))
	eventually(t, "another to lead", func() error { return anotherLeads(old) })
	eventually(t, "all claims to be Bound", func() error { return bound(namespace, early+late+1) })
	ready(t, namespace, "mounted")
	time.Sleep(time.Until(stopped.Add(30 * time.Second)))
	send(t, "CONT", process)
	continued := time.Now()
	kubectl(t, "-n", namespace, "delete", "pod", "mounted", "--timeout=1m") // detached by the other
	eventually(t, "the process that was stopped to end", func() error {
		_, err := k8s.NodeExec(ctx, "node-a", "test", "!", "-e", "/proc/"+process)
		return err
	})
	bothReady(t)
	must(t, anotherLeads(old))
	// Requests that were on their way when it was stopped arrive within a moment.
	grace := stopped.Add(2 * time.Second)
	by, afterwards := map[string]int{}, map[string]int{}
	for _, w := range writes(t) {
		switch {
		case w.at.After(grace) && w.pod == old:
			when := "while it was stopped"
			if w.at.After(continued) {
				when = "after it was continued"
			}
			t.Errorf("the stopped leader wrote %s: %s %s", when, w.verb, w.what)
		case w.at.After(grace):
			afterwards[w.pod]++
		case w.at.After(began):
			by[w.pod]++
		}
	}
	now, err := leader()
	must(t, err)
	if by[old] == 0 || afterwards[now] == 0 {
		t.Errorf("the audit log shows nothing: before the stop %v, after it %v", by, afterwards)
	}
	if volumes := made(t, before); len(volumes) != early+late+1 {
		t.Errorf("%d claims are Bound, and the share holds %d volumes for them: %q", early+late+1, len(volumes), volumes)
	}
}

func TestTheOtherServesWithinFiveSecondsAfterACleanStop(t *testing.T) {
	limit := 5 * time.Second
	if sanitized != "" {
		limit *= 3 // what a sanitizer costs is not the operator's
	}
	namespace := space(t)
	server := newAPI(t) // a kubectl would take a part of the time that is measured
	holder := func() string {
		var lease struct {
			Spec struct{ HolderIdentity string }
		}
		server.get(t, "/apis/coordination.k8s.io/v1/namespaces/"+system+"/leases/collage-operator", &lease)
		pod, _, _ := strings.Cut(lease.Spec.HolderIdentity, "_")
		return pod
	}
	until := func(what string, condition func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("waited a minute for %s", what)
			}
		}
	}
	claims := "/api/v1/namespaces/" + namespace + "/persistentvolumeclaims"
	var took []time.Duration
	for round := range 3 {
		old := bothReady(t)
		process := processOf(t, old)
		before, _ := restarts(t, old)
		began := time.Now()
		send(t, "TERM", process)
		until("another to lead", func() bool { now := holder(); return now != "" && now != old })
		led := time.Since(began)
		name := fmt.Sprintf("after-%d", round)
		server.create(t, claims, claimObject(name))
		until("the claim to be Bound", func() bool {
			var claim struct{ Status struct{ Phase string } }
			return server.get(t, claims+"/"+name, &claim) && claim.Status.Phase == "Bound"
		})
		took = append(took, time.Since(began))
		t.Logf("from SIGTERM of the leader until another leads %v, until that has served a new claim %v", led, took[round])
		must(t, anotherLeads(old))
		// It is the other one in the next round.
		eventually(t, "the stopped one to be back", func() error {
			if count, ready := restarts(t, old); count == before || !ready {
				return fmt.Errorf("%s was started again %d times, ready: %v", old, count, ready)
			}
			return nil
		})
	}
	if slowest := slices.Max(took); slowest > limit {
		t.Errorf("one took %v, allowed are %v", slowest, limit)
	}
}

func TestTheAPIServerIsAwayUnderLoad(t *testing.T) {
	const early, late = 40, 10
	namespace := space(t)
	before := onStorage(t, "node-a", cluster.ShareDir)
	bothReady(t)
	apply(t, someClaims(namespace, "early", early))
	eventually(t, "the first claims to be Bound", func() error { return someBound(namespace) })
	must(t, k8s.StopComponent(ctx, "kube-apiserver", syscall.SIGKILL))
	time.Sleep(12 * time.Second) // longer than a leader may write without a renewal
	must(t, k8s.StartComponent(ctx, "kube-apiserver"))
	eventually(t, "the API server", func() error {
		_, err := k8s.Kubectl(ctx, "get", "--raw", "/readyz")
		return err
	})
	apply(t, someClaims(namespace, "late", late))
	eventually(t, "all claims to be Bound", func() error { return bound(namespace, early+late) })
	bothReady(t)
	if volumes := made(t, before); len(volumes) != early+late {
		t.Errorf("%d claims are Bound, and the share holds %d volumes for them: %q", early+late, len(volumes), volumes)
	}
	// Both replicas said so, the one that lost its Lease before it ended.
	said := 0
	for _, name := range strings.Fields(kubectl(t, "-n", system, "get", "pods", "-l", "app.kubernetes.io/component=operator", "-o", "name")) {
		out := kubectl(t, "-n", system, "logs", name)
		if previous, err := k8s.Kubectl(ctx, "-n", system, "logs", name, "--previous"); err == nil {
			out += previous
		}
		if strings.Contains(out, "the API server does not answer as it should") && strings.Contains(out, cluster.ServiceAddress) {
			said++
		}
	}
	if said != 2 {
		t.Errorf("%d of 2 operators said that the API server was away", said)
	}
}
