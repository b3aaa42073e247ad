package suite

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"collage/e2e/cluster"
)

// These tests kill parts of Collage, so they do not run beside others.

func TestTheOperatorIsKilledAmidClaimsAndNothingLeaks(t *testing.T) {
	const count = 40
	namespace := space(t)
	before := onStorage(t, "node-a", cluster.ShareDir)
	manifest := strings.Builder{}
	for i := range count {
		manifest.WriteString(claim{name: fmt.Sprintf("c-%d", i), class: "share-now", size: "1Mi"}.manifest(namespace))
	}
	stop := killOperators(t)
	apply(t, manifest.String())
	eventually(t, "all claims to be Bound", func() error { return bound(namespace, count) })
	stop()
	if volumes := made(t, before); len(volumes) != count {
		t.Errorf("%d claims are Bound, and the share holds %d volumes for them: %q", count, len(volumes), volumes)
	}
	stop = killOperators(t)
	kubectl(t, "-n", namespace, "delete", "pvc", "--all", "--wait=false")
	gone := func() error {
		if volumes := made(t, before); len(volumes) > 0 {
			return fmt.Errorf("the share still holds %q", volumes)
		}
		out, err := k8s.Kubectl(ctx, "get", "pv", "-o", `jsonpath={range .items[?(@.spec.claimRef.namespace=="`+namespace+`")]}{.metadata.name} {end}`)
		if err == nil && strings.TrimSpace(out) != "" {
			err = fmt.Errorf("left: %s", out)
		}
		return err
	}
	eventually(t, "all volumes to be gone", gone)
	stop()
	eventually(t, "the intents to end", func() error {
		out, err := k8s.Kubectl(ctx, "-n", system, "get", "configmap", "collage-intents-share", "-o", "jsonpath={.data}")
		if err == nil && out != "" && out != "{}" {
			err = fmt.Errorf("open: %s", out)
		}
		return err
	})
	must(t, gone())
}

// killOperators kills every operator process again and again until the function that it answers is called.
func killOperators(t *testing.T) (stop func()) {
	t.Helper()
	// New pods: kubelet lets those that ended before wait longer each time.
	kubectl(t, "-n", system, "delete", "pods", "-l", "app.kubernetes.io/component=operator", "--timeout=1m")
	bothReady(t)
	quit, done := make(chan struct{}), make(chan int)
	go func() {
		kills := 0
		pause := 300 * time.Millisecond // the first while claims are still being served
		for {
			select {
			case <-quit:
				done <- kills
				return
			case <-time.After(pause):
				pause = 1500 * time.Millisecond
				if kills < 3 {
					kills += kill(t, "node-a", "/usr/bin/collage operator")
				}
			}
		}
	}()
	return func() {
		t.Helper()
		close(quit)
		if kills := <-done; kills == 0 {
			t.Error("no operator was killed: the test showed nothing")
		}
		kubectl(t, "-n", system, "rollout", "status", "deployment", "--timeout=2m")
	}
}

// kill sends SIGKILL to every process whose command line begins so, and answers how many there were. All nodes share one
// process namespace.
func kill(t *testing.T, node, command string) int {
	out, err := k8s.NodeExec(ctx, node, "sh", "-c", `
		for p in /proc/[0-9]*; do
			line=$(tr '\0' ' ' 2>/dev/null < $p/cmdline) || continue
			case "$line" in "`+command+`"*) kill -9 ${p#/proc/} && echo killed ;; esac
		done`)
	if err != nil {
		t.Error(err)
	}
	return strings.Count(out, "killed")
}

func TestAPodDoesNotNoticeThatTheNodeAgentIsKilled(t *testing.T) {
	namespace := space(t)
	for _, class := range []string{"disk", "share"} {
		apply(t, claim{name: class, class: class, size: "32Mi"}.manifest(namespace)+
			pod{name: class, node: "node-a", claim: class, script: "touch /data/beats; (while echo beat >> /data/beats && sync; do sleep 0.1; done; echo stopped) & true"}.manifest(namespace))
	}
	beats := func(class string) string {
		return kubectl(t, "-n", namespace, "exec", class, "--", "sh", "-c", "wc -l < /data/beats")
	}
	for _, class := range []string{"disk", "share"} {
		ready(t, namespace, class)
	}
	for round := range 3 {
		// The DaemonSet may still count an agent as ready that was killed a moment ago, and kubelet waits longer before
		// each restart: what counts is that there is a process to kill.
		eventually(t, fmt.Sprintf("an agent to kill, round %d", round), func() error {
			if killed := kill(t, "node-a", "/usr/bin/collage node --node-name=node-a"); killed != 1 {
				return fmt.Errorf("%d agents run on node-a", killed)
			}
			return nil
		})
		for _, class := range []string{"disk", "share"} {
			before := beats(class)
			eventually(t, "pod "+class+" to go on writing", func() error {
				if beats(class) == before {
					return fmt.Errorf("still %s beats", before)
				}
				return nil
			})
			if out := kubectl(t, "-n", namespace, "logs", class); strings.Contains(out, "stopped") {
				t.Errorf("pod %s noticed: %q", class, out)
			}
		}
		kubectl(t, "-n", system, "rollout", "status", "daemonset", "--timeout=2m")
	}
	// The new agent knows the old one's mounts: another pod can share them, and all go cleanly.
	apply(t, pod{name: "late", node: "node-a", claim: "share", script: "test -s /data/beats"}.manifest(namespace))
	ready(t, namespace, "late")
	volume := volumeOf(t, namespace, "share")
	kubectl(t, "-n", namespace, "delete", "pods", "--all", "--timeout=1m")
	eventually(t, "the volume to be unmounted", func() error {
		out, err := k8s.NodeExec(ctx, "node-a", "sh", "-c", "grep "+volume+" /proc/self/mountinfo || true")
		if err == nil && out != "" {
			err = fmt.Errorf("mounted: %s", out)
		}
		return err
	})
}
