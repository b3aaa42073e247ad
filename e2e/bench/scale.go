package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// scale measures the operator with many objects in the API server: its memory once it has looked at all of them, and how
// long a restart takes. The objects are copies of what Collage and the controller manager made of one real claim.
func (s *session) scale(ctx context.Context) error {
	operator, err := s.operator(ctx)
	if err != nil {
		return err
	}
	var pattern pattern
	err = func() error {
		defer operator.stop()
		l := &load{api: s.api, who: collage, name: "pattern", claims: 1}
		if _, err := l.provision(ctx); err != nil {
			return err
		}
		return pattern.read(ctx, s.api, l)
	}()
	if err != nil {
		return err
	}
	if err := s.fill(ctx, &pattern); err != nil {
		return err
	}
	return s.restart(ctx)
}

// pattern is a claim and its volume as the API server shows them.
type pattern struct{ claim, volume fields }

func (p *pattern) read(ctx context.Context, a *api, l *load) error {
	for path, into := range map[string]*fields{claimsPath + "/" + l.names(1)[0]: &p.claim, volumesPath + "/" + l.volumes[0]: &p.volume} {
		text, err := a.do(ctx, http.MethodGet, path, nil)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, into); err != nil {
			return err
		}
	}
	return nil
}

// clone copies an object without what the API server puts in, under another name. Its metadata and spec may be changed.
func clone(object fields, name string) fields {
	text, _ := json.Marshal(object)
	copied := fields{}
	json.Unmarshal(text, &copied)
	old := copied["metadata"].(fields)
	metadata := fields{"name": name}
	for _, key := range []string{"namespace", "annotations", "labels", "finalizers"} {
		if old[key] != nil {
			metadata[key] = old[key]
		}
	}
	copied["metadata"] = metadata
	return copied
}

// uid makes a name of the length that real ones have.
func uid(i int) string { return fmt.Sprintf("%08x-bec4-4c0a-8a1f-%012x", i*2654435761%(1<<32), i) }

// claimOf and volumeOf are the i-th copies, bound to each other.
func (p *pattern) claimOf(i int) fields {
	claim := clone(p.claim, fmt.Sprintf("data-database-%05d", i))
	claim["metadata"].(fields)["labels"] = labels(i)
	claim["spec"].(fields)["volumeName"] = "pvc-" + uid(i)
	return claim
}

func (p *pattern) volumeOf(i int, claim object) fields {
	volume := clone(p.volume, "pvc-"+uid(i))
	spec := volume["spec"].(fields)
	reference := spec["claimRef"].(fields)
	reference["name"], reference["uid"] = claim.Metadata.Name, claim.Metadata.UID
	reference["resourceVersion"] = claim.Metadata.ResourceVersion
	csi := spec["csi"].(fields)
	handle := csi["volumeHandle"].(string)
	backend, _, _ := strings.Cut(handle, "/")
	csi["volumeHandle"] = backend + "/pvc-" + uid(i)
	return volume
}

func labels(i int) fields {
	return fields{"app.kubernetes.io/name": "database", "app.kubernetes.io/instance": fmt.Sprintf("database-%d", i/3),
		"app.kubernetes.io/component": "primary", "app.kubernetes.io/managed-by": "Helm", "helm.sh/chart": "database-12.1.6",
		"statefulset.kubernetes.io/pod-name": fmt.Sprintf("database-%05d", i), "apps.kubernetes.io/pod-index": fmt.Sprint(i % 3)}
}

// scaledPod is a pod as they are: three containers with environments, probes and mounts. A scheduling gate keeps it from
// every node, so that no kubelet runs it.
func scaledPod(i int) fields {
	container := func(name string, port int) fields {
		var environment []fields
		for k := range 12 {
			environment = append(environment, fields{"name": fmt.Sprintf("DATABASE_SETTING_%02d", k), "value": fmt.Sprintf("value-%d-of-%s", k, name)})
		}
		probe := fields{"httpGet": fields{"path": "/healthz", "port": port}, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6}
		return fields{"name": name, "image": "registry.example.com/database/" + name + ":12.1.6", "env": environment,
			"ports":         []fields{{"name": "p" + fmt.Sprint(port), "containerPort": port}},
			"livenessProbe": probe, "readinessProbe": probe,
			"resources":       fields{"requests": fields{"cpu": "100m", "memory": "128Mi"}, "limits": fields{"memory": "256Mi"}},
			"securityContext": fields{"runAsNonRoot": true, "runAsUser": 1001, "allowPrivilegeEscalation": false},
			"volumeMounts":    []fields{{"name": "data", "mountPath": "/data"}, {"name": "config", "mountPath": "/etc/database", "readOnly": true}}}
	}
	return fields{"apiVersion": "v1", "kind": "Pod",
		"metadata": fields{"name": fmt.Sprintf("database-%05d", i), "labels": labels(i), "annotations": fields{"checksum/config": strings.Repeat("0123456789abcdef", 4)}},
		"spec": fields{"schedulingGates": []fields{{"name": "bench.collage.storage/never"}},
			"containers": []fields{container("database", 5432), container("metrics", 9187), container("backup", 8080)},
			"volumes": []fields{{"name": "data", "persistentVolumeClaim": fields{"claimName": fmt.Sprintf("data-database-%05d", i)}},
				{"name": "config", "configMap": fields{"name": "database-config"}}}}}
}

// fill makes the objects, as Bound as the controller manager would have made them. It does not run meanwhile: it would
// find claims without their volumes.
func (s *session) fill(ctx context.Context, p *pattern) (err error) {
	const component = "kube-controller-manager"
	if err := s.cluster.StopComponent(ctx, component, syscall.SIGTERM); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, s.cluster.StartComponent(context.WithoutCancel(ctx), component))
	}()
	began := time.Now()
	var made atomic.Int64
	done := make(chan struct{})
	defer close(done)
	go func() {
		for tick := time.NewTicker(5 * time.Second); ; {
			select {
			case <-tick.C:
				s.say("scale: %d of %d claims, each with volume and pod", made.Load(), s.objects)
			case <-done:
				tick.Stop()
				return
			}
		}
	}()
	s.say("scale: make %d claims, volumes and pods", s.objects)
	err = each(ctx, s.objects, func(ctx context.Context, i int) error {
		defer made.Add(1)
		return s.fillOne(ctx, p, i)
	})
	if err == nil {
		s.say("scale: made in %.0f s", time.Since(began).Seconds())
	}
	return err
}

func (s *session) fillOne(ctx context.Context, p *pattern, i int) error {
	text, err := s.api.do(ctx, http.MethodPost, claimsPath, p.claimOf(i))
	if err != nil {
		return err
	}
	var claim object
	if err := json.Unmarshal(text, &claim); err != nil {
		return err
	}
	if _, err := s.api.do(ctx, http.MethodPost, volumesPath, p.volumeOf(i, claim)); err != nil {
		return err
	}
	if err := s.api.patch(ctx, claimsPath+"/"+claim.Metadata.Name+"/status", fields{"status": p.claim["status"]}); err != nil {
		return err
	}
	if err := s.api.patch(ctx, volumesPath+"/pvc-"+uid(i)+"/status", fields{"status": fields{"phase": "Bound"}}); err != nil {
		return err
	}
	_, err = s.api.do(ctx, http.MethodPost, podsPath, scaledPod(i))
	return err
}

// restart measures starts of the operator with all the objects there. Each predecessor ended cleanly, so its Lease is
// free: what is measured is the start, not the end of a Lease. The last one also works, as one that runs for long has.
func (s *session) restart(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bound, err := s.api.watchBound(ctx)
	if err != nil {
		return err
	}
	var served, leads []float64
	// The first start is not counted: the controller manager has just been started, too, and lists everything.
	for i := range s.restarts + 1 {
		work := func(*process) error { return nil }
		if i == s.restarts {
			work = func(operator *process) error { return s.workAtScale(ctx, operator) }
		}
		leading, took, err := s.startAtScale(ctx, bound, i, work)
		if err != nil {
			return err
		}
		if i > 0 {
			served, leads = append(served, took.Seconds()), append(leads, leading.Seconds())
		}
	}
	s.result.set("restart_seconds_10k", median(served))
	s.result.set("restart_leads_seconds_10k", median(leads))
	s.result.set("scale_objects", float64(s.objects))
	return nil
}

// startAtScale starts the operator, makes a claim at the moment that it leads, waits until there is nothing more to do,
// measures its memory, gives it work, and ends it. It returns how long after its start it led, and the claim was Bound.
func (s *session) startAtScale(ctx context.Context, bound *boundClaims, number int, work func(*process) error) (leading, took time.Duration, err error) {
	began := time.Now()
	operator, err := s.programs.startOperator(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer operator.stop()
	if err := s.cluster.WaitFor(ctx, "the operator's caches", time.Minute, func() error { return ready(ctx, operatorMetrics) }); err != nil {
		return 0, 0, err
	}
	leading = time.Since(began)
	if _, _, err := bound.claim(ctx, s.api, fmt.Sprintf("restart-%d", number), collage.class); err != nil {
		return 0, 0, err
	}
	took = time.Since(began)
	if used, err := processorTime(operator.pid); err == nil {
		s.result.raise("restart_processor_seconds_10k", used.Seconds())
	}
	if err := s.holdsAll(ctx); err != nil {
		return 0, 0, err
	}
	if err := s.memoryAtScale(ctx, operator, "operator"); err != nil {
		return 0, 0, err
	}
	s.say("scale: start %d: leads with whole caches after %.2f s, a new claim is Bound after %.2f s; %.1f MiB resident, %.1f at the peak", number,
		leading.Seconds(), took.Seconds(), s.result.values["operator_rss_mib_10k"], s.result.values["operator_hwm_mib_10k"])
	return leading, took, work(operator)
}

// workAtScale makes and deletes volumes beside all the others, and measures the memory again.
func (s *session) workAtScale(ctx context.Context, operator *process) error {
	s.result.set("operator_started_rss_mib_10k", s.result.values["operator_rss_mib_10k"])
	l := &load{api: s.api, who: collage, name: "scale-work", claims: s.claims, attaches: s.attaches,
		progress: func(format string, arguments ...any) { s.say("scale: "+format, arguments...) }}
	for _, phase := range rates {
		if _, err := l.run(ctx, phase); err != nil {
			return fmt.Errorf("%s: %w", phase, err)
		}
	}
	if err := s.memoryAtScale(ctx, operator, "operator_worked"); err != nil {
		return err
	}
	// What a burst needed is given back within a minute.
	s.say("scale: rest for a minute")
	if err := sleep(ctx, 65*time.Second); err != nil {
		return err
	}
	if err := s.memoryAtScale(ctx, operator, "operator"); err != nil {
		return err
	}
	s.say("scale: after %d volumes made and deleted: %.1f MiB resident, %.1f at the peak, %.1f before the rest", s.claims,
		s.result.values["operator_rss_mib_10k"], s.result.values["operator_hwm_mib_10k"], s.result.values["operator_worked_rss_mib_10k"])
	return nil
}

// memoryAtScale waits until the operator has nothing to do, and keeps the largest of its sizes.
func (s *session) memoryAtScale(ctx context.Context, operator *process, prefix string) error {
	if err := settled(ctx, operator, 2*time.Minute); err != nil {
		return err
	}
	for what, key := range map[string]string{"VmRSS": "_rss_mib_10k", "VmHWM": "_hwm_mib_10k", "RssAnon": "_anon_mib_10k"} {
		value, err := memory(operator.pid, what)
		if err != nil {
			return err
		}
		s.result.raise(prefix+key, value)
	}
	return nil
}

// holdsAll makes sure that the operator did list the objects.
func (s *session) holdsAll(ctx context.Context) error {
	text, err := metricsOf(ctx, operatorMetrics)
	if err != nil {
		return err
	}
	held := map[string]float64{}
	if err := samples(bytes.NewReader(text), "collage_informer_objects", func(labels map[string]string, value float64) {
		held[labels["resource"]] = value
	}); err != nil {
		return err
	}
	for _, resource := range []string{"persistentvolumes", "persistentvolumeclaims"} {
		if held[resource] < float64(s.objects) {
			return fmt.Errorf("the operator has listed %.0f %s of %d", held[resource], resource, s.objects)
		}
	}
	return nil
}
