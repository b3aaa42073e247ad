package suite

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"collage/e2e/cluster"
)

// Of every four cuts of one write `make test` makes one, another for each write; `make cuts` makes all.
const allCuts = "COLLAGE_ALL_CUTS"

// TestEveryCut takes a claim through its life, Bound, attached, detached and deleted, and notes every write of the operator.
// Then it does so again and again, and each time cuts the wire at one of the writes, before it or after its effect, kills the
// operator there, and starts it again: with the claim kept, which then goes its way to the end, and with the claim deleted in
// between. An oracle compares what the storage holds with PersistentVolumes and intents after every such life.
func TestEveryCut(t *testing.T) {
	b := newCutBench(t)
	recorded := b.record(t)
	variants := []struct{ effect, deleted bool }{{false, false}, {true, true}, {true, false}, {false, true}}
	all := os.Getenv(allCuts) != ""
	made, reached := 0, 0
	reachedOf := map[string]int{} // by sort of write; when all are made, by sort and variant
	for i, write := range recorded {
		for v, variant := range variants {
			if !all && v != i%len(variants) {
				continue
			}
			write.effect = variant.effect
			made++
			sort := write.sort
			if all {
				sort = fmt.Sprintf("%s %+v", write.sort, variant)
			}
			reachedOf[sort] += 0
			if b.life(t, fmt.Sprintf("%d-%d", i, v), &write, variant.deleted) {
				reached++
				reachedOf[sort]++
			}
			if t.Failed() {
				t.Fatalf("at the cut %s, deleted=%t\n%s", write, variant.deleted, b.tail())
			}
		}
	}
	t.Logf("%d writes, %d lives, %d of them cut", len(recorded), made, reached)
	// Which writes fall together into one is a matter of time, so a cut of the last ones may not come.
	if reached*4 < made*3 {
		t.Errorf("only %d of %d lives were cut", reached, made)
	}
	for sort, count := range reachedOf {
		if count == 0 {
			t.Errorf("never cut: %s", sort)
		}
	}
}

// cutBench runs the operator as a process of its own, behind the proxy. Those of the cluster stand still meanwhile.
type cutBench struct {
	proxy      *cutProxy
	api        *api
	namespace  string
	kubeconfig string
	log        string
	operator   *exec.Cmd
	others     []string // volumes that other tests left on purpose
}

func newCutBench(t *testing.T) *cutBench {
	t.Helper()
	b := &cutBench{namespace: space(t), proxy: startCutProxy(t), api: newAPI(t), log: filepath.Join(t.TempDir(), "operator.log")}
	replicas := kubectl(t, "-n", system, "get", "deployment", "collage-operator", "-o", "jsonpath={.spec.replicas}")
	kubectl(t, "-n", system, "scale", "deployment", "collage-operator", "--replicas=0")
	kubectl(t, "-n", system, "wait", "pod", "-l", "app.kubernetes.io/component=operator", "--for=delete", "--timeout=1m")
	t.Cleanup(func() {
		b.kill(t)
		if log, err := os.ReadFile(b.log); err == nil {
			noReports(t, string(log))
		}
		kubectl(t, "-n", system, "scale", "deployment", "collage-operator", "--replicas="+replicas)
		kubectl(t, "-n", system, "rollout", "status", "deployment", "--timeout=2m")
	})
	b.others = append(b.stored(t), b.volumes(t)...)
	b.kubeconfig = b.proxy.kubeconfig(t)
	b.start(t)
	return b
}

func (b *cutBench) start(t *testing.T) {
	t.Helper()
	command, err := k8s.Command(ctx, program(), "operator", "--namespace="+system,
		"--pod-name=cut", "--listen=127.0.0.1:0", "--kubeconfig="+b.kubeconfig, "--log-format=text")
	must(t, err)
	log, err := os.OpenFile(b.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	must(t, err)
	defer log.Close()
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, command.Start())
	b.operator = command
}

// kill is SIGKILL, waited for. Then the Lease of the dead is given up in its name: it would keep the next operator waiting
// for as long as its holder might still write, and this one is known to write no more.
func (b *cutBench) kill(t *testing.T) {
	t.Helper()
	if b.operator == nil {
		return
	}
	must(t, b.operator.Process.Kill())
	b.operator.Wait()
	b.operator = nil
	b.giveUpLease(t)
}

func (b *cutBench) giveUpLease(t *testing.T) {
	t.Helper()
	const path = "/apis/coordination.k8s.io/v1/namespaces/" + system + "/leases/collage-operator"
	lease := map[string]any{}
	if !b.api.get(t, path, &lease) {
		return
	}
	spec := lease["spec"].(map[string]any)
	spec["holderIdentity"], spec["leaseDurationSeconds"] = "", 1
	body, err := json.Marshal(lease)
	must(t, err)
	if code, answer := b.api.do(t, "PUT", path, string(body)); code != 200 {
		t.Fatalf("give up the Lease: %d %s", code, answer)
	}
}

func (b *cutBench) tail() string {
	content, _ := os.ReadFile(b.log)
	return "end of the operator's log:\n" + string(content[max(0, len(content)-6000):])
}

func (b *cutBench) claims() string {
	return "/api/v1/namespaces/" + b.namespace + "/persistentvolumeclaims"
}

const attachments = "/apis/storage.k8s.io/v1/volumeattachments"

// step is a part of a claim's life: what a person or a controller of Kubernetes does, and what must follow. Each may be done
// again from its beginning.
type step struct {
	name string
	do   func(t *testing.T)
	done func(t *testing.T) error
}

func (b *cutBench) steps(name string) []step {
	attachment := attachments + "/cut-" + name
	volume := func(t *testing.T) string {
		var claim struct{ Spec struct{ VolumeName string } }
		b.api.get(t, b.claims()+"/"+name, &claim)
		return claim.Spec.VolumeName
	}
	var bound string
	return []step{
		{"Bound", func(t *testing.T) {
			b.api.create(t, b.claims(), claimObject(name))
		}, func(t *testing.T) error {
			if bound = volume(t); bound == "" {
				return fmt.Errorf("the claim has no volume")
			}
			return nil
		}},
		{"attached", func(t *testing.T) {
			b.api.create(t, attachments, fmt.Sprintf(`{"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": "cut-%s"},
				"spec": {"attacher": "image.collage.storage", "nodeName": "node-a", "source": {"persistentVolumeName": %q}}}`, name, bound))
		}, func(t *testing.T) error {
			var object struct {
				Status struct {
					Attached    bool
					AttachError struct{ Message string }
				}
			}
			if b.api.get(t, attachment, &object); !object.Status.Attached {
				return fmt.Errorf("not attached: %s", object.Status.AttachError.Message)
			}
			return nil
		}},
		{"detached", func(t *testing.T) { b.api.delete(t, attachment) }, func(t *testing.T) error {
			if b.api.get(t, attachment, &struct{}{}) {
				return fmt.Errorf("the VolumeAttachment is still there")
			}
			return nil
		}},
		{"deleted", func(t *testing.T) { b.api.delete(t, b.claims()+"/"+name) }, func(t *testing.T) error { return b.nothingLeft(t) }},
	}
}

// wait polls. False when the operator was cut first.
func (b *cutBench) wait(t *testing.T, what string, condition func() error) bool {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		missing := condition()
		if missing == nil {
			return true
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for the claim to be %s: %v\n%s", limit, what, missing, b.tail())
		}
		select {
		case <-b.proxy.wasHit():
			return false
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// record is a life without a cut.
func (b *cutBench) record(t *testing.T) []cut {
	t.Helper()
	b.life(t, "warm-up", nil, false) // the backend's own first writes are over
	b.proxy.arm(nil)
	b.life(t, "recorded", nil, false)
	writes := b.proxy.writes()
	var text []string
	for _, w := range writes {
		text = append(text, fmt.Sprintf("%s #%d", w.sort, w.n))
	}
	t.Logf("%d writes: %s", len(writes), strings.Join(text, ", "))
	if len(writes) < 10 {
		t.Fatal("a life has more writes than that")
	}
	return writes
}

// life answers whether the cut was made.
func (b *cutBench) life(t *testing.T, name string, at *cut, deleted bool) (wasCut bool) {
	t.Helper()
	began := time.Now()
	b.proxy.arm(at)
	steps := b.steps(name)
	for i := 0; i < len(steps); i++ {
		steps[i].do(t)
		if b.wait(t, steps[i].name, func() error { return steps[i].done(t) }) {
			if wasCut {
				b.wait(t, "all there is", func() error { return b.oracle(t) })
			}
			continue
		}
		wasCut = true
		b.kill(t)
		must(t, b.leaked(t)) // by whoever is dead now: nobody has mended anything yet
		b.proxy.arm(nil)
		if deleted {
			b.api.delete(t, b.claims()+"/"+name)
			b.api.delete(t, attachments+"/cut-"+name)
			i = len(steps) - 2 // on to "deleted"
		} else {
			i-- // the same step again
		}
		b.start(t)
	}
	select {
	case <-b.proxy.wasHit(): // just when all was done
		wasCut = true
		b.kill(t)
		b.proxy.arm(nil)
		b.start(t)
		b.wait(t, "still deleted", func() error { return b.nothingLeft(t) })
	default:
	}
	if at != nil {
		t.Logf("%s, deleted=%t: cut=%t, %.1f s", at, deleted, wasCut, time.Since(began).Seconds())
	}
	return wasCut
}

// oracle compares the storage with the API server. A volume on the storage belongs to a PersistentVolume or to an open
// intent; a PersistentVolume has its volume, unless it is being deleted.
func (b *cutBench) oracle(t *testing.T) error {
	if err := b.leaked(t); err != nil {
		return err
	}
	stored := b.stored(t)
	for _, name := range b.volumes(t) {
		if !slices.Contains(stored, name) {
			return fmt.Errorf("lost: PersistentVolume %s has no volume on the storage", name)
		}
	}
	return nil
}

// leaked is the part of it that holds at every instant, whatever is under way.
func (b *cutBench) leaked(t *testing.T) error {
	stored, volumes, intents := b.stored(t), b.volumes(t), b.intents(t)
	for _, name := range stored {
		if slices.Contains(volumes, name) || slices.ContainsFunc(intents, func(uid string) bool { return name == "pvc-"+uid }) {
			continue
		}
		return fmt.Errorf("leaked: %s is on the storage, and neither a PersistentVolume nor an intent names it", name)
	}
	if len(stored) > 1 {
		return fmt.Errorf("doubled: the storage holds %q", stored)
	}
	return nil
}

func (b *cutBench) nothingLeft(t *testing.T) error {
	if volumes, intents := b.volumes(t), b.intents(t); len(volumes)+len(intents) > 0 {
		return fmt.Errorf("PersistentVolumes are %q, open intents %q", volumes, intents)
	}
	if stored := b.stored(t); len(stored) > 0 {
		return fmt.Errorf("leaked: the storage holds %q", stored)
	}
	for _, node := range cluster.Nodes {
		var object struct {
			Spec struct{ Operations []string }
		}
		b.api.get(t, "/apis/collage.storage/v1beta1/storagenodes/"+node.Name, &object)
		if len(object.Spec.Operations) > 0 {
			return fmt.Errorf("StorageNode %s is still asked for %v", node.Name, object.Spec.Operations)
		}
	}
	return nil
}

// stored answers the names of the volumes that the share holds.
func (b *cutBench) stored(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(volumesOf(onStorage(t, "node-a", cluster.ShareDir)), func(volume string) bool {
		return slices.Contains(b.others, volume)
	})
}

func (b *cutBench) volumes(t *testing.T) []string {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct{ CSI struct{ VolumeHandle string } }
		}
	}
	b.api.get(t, "/api/v1/persistentvolumes", &list)
	var names []string
	for _, item := range list.Items {
		if backend, id, _ := strings.Cut(item.Spec.CSI.VolumeHandle, "/"); backend == "share" && !slices.Contains(b.others, id) {
			names = append(names, id)
		}
	}
	return names
}

// intents answers the UIDs of the claims whose creates have begun.
func (b *cutBench) intents(t *testing.T) []string {
	t.Helper()
	var object struct{ Data map[string]string }
	b.api.get(t, "/api/v1/namespaces/"+system+"/configmaps/collage-intents-share", &object)
	var uids []string
	for uid := range object.Data {
		uids = append(uids, uid)
	}
	return uids
}
