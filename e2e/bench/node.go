package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"collage/e2e/cluster"
)

// atRest measures what Collage needs while it has nothing to do: a pod holds many volumes on one node, half of them of each
// kind, all staged and published by its kubelet. The agents are started for it, as on nodes that were just installed;
// what they hold that have worked through all rounds is told beside it.
func (s *session) atRest(ctx context.Context) error {
	if err := s.agentMemory("node_worked"); err != nil {
		return err
	}
	s.stopAgents()
	var err error
	if s.agents, err = s.programs.startAgents(ctx); err != nil {
		return err
	}
	operator, err := s.operator(ctx)
	if err != nil {
		return err
	}
	defer operator.stop()
	if err := s.agentMemory("node_empty"); err != nil {
		return err
	}
	names, err := s.mountVolumes(ctx)
	if err != nil {
		return err
	}
	if err := settled(ctx, s.agents[0], time.Minute); err != nil {
		return err
	}
	if err := s.agentMemory("node_busy"); err != nil {
		return err
	}
	if s.phases.wants("idle") {
		err = s.idleWrites(ctx)
	} else {
		err = s.rest(ctx, "node", 2*time.Minute)
	}
	if err != nil {
		return err
	}
	s.say("node: %.1f MiB resident, %.1f of it anonymous, with %d volumes staged and published (%.1f just after that)",
		s.result.values["node_rss_mib"], s.result.values["node_anon_mib"], s.staged, s.result.values["node_busy_rss_mib"])
	if err := s.keepMetrics(ctx); err != nil {
		return err
	}
	return s.unmountVolumes(ctx, names)
}

// rest waits so long, and keeps the largest of the sizes that the agents had in the last minute of it.
func (s *session) rest(ctx context.Context, phase string, length time.Duration) error {
	begun, told := time.Now(), time.Now()
	for {
		left := length - time.Since(begun)
		if left <= 0 {
			return nil
		}
		if time.Since(told) > 30*time.Second {
			told = time.Now()
			s.say("%s: %s more", phase, left.Round(time.Second))
		}
		if err := sleep(ctx, min(left, time.Second)); err != nil {
			return err
		}
		if left > time.Minute {
			continue
		}
		if err := s.agentMemory("node"); err != nil {
			return err
		}
	}
}

// mountVolumes has kubelet mount the volumes on the first node, and returns the claims' names.
func (s *session) mountVolumes(ctx context.Context) ([]string, error) {
	node := cluster.Nodes[0].Name
	s.say("node: a pod with %d volumes on %s", s.staged, node)
	names := (&load{name: "node"}).names(s.staged)
	classes := []string{collage.class, localClass}
	if err := each(ctx, s.staged, func(ctx context.Context, i int) error {
		claim := claimObject(names[i], classes[i%2])
		claim["spec"].(fields)["resources"] = fields{"requests": fields{"storage": "16Mi"}}
		_, err := s.api.do(ctx, http.MethodPost, claimsPath, claim)
		return err
	}); err != nil {
		return nil, err
	}
	if _, err := s.api.do(ctx, http.MethodPost, podsPath, podWith("node", node, names)); err != nil {
		return nil, err
	}
	if err := s.cluster.WaitFor(ctx, "the pod to run", 5*time.Minute, func() error {
		phase, err := s.cluster.Kubectl(ctx, "-n", space, "get", "pod", "node", "-o", "jsonpath={.status.phase}")
		if err == nil && phase != "Running" {
			err = fmt.Errorf("it is %s", phase)
		}
		return err
	}); err != nil {
		return nil, err
	}
	text, err := s.cluster.NodeExec(ctx, node, "sh", "-c", "grep -c 'collage.*globalmount.* /dev/loop' /proc/self/mountinfo")
	mounted, _ := strconv.Atoi(strings.TrimSpace(text))
	if mounted != s.staged {
		return nil, errors.Join(fmt.Errorf("%d volumes are staged on %s, expected %d", mounted, node, s.staged), err)
	}
	s.result.set("node_staged_volumes", float64(mounted))
	return names, nil
}

func (s *session) unmountVolumes(ctx context.Context, names []string) error {
	if _, err := s.api.do(ctx, http.MethodDelete, podsPath+"/node?gracePeriodSeconds=1", nil); err != nil {
		return err
	}
	if err := each(ctx, len(names), func(ctx context.Context, i int) error {
		_, err := s.api.do(ctx, http.MethodDelete, claimsPath+"/"+names[i], nil)
		return err
	}); err != nil {
		return err
	}
	return s.cluster.WaitFor(ctx, "the pod's volumes to be gone", 5*time.Minute, func() error {
		left, err := s.cluster.Kubectl(ctx, "get", "pv", "-o", `jsonpath={range .items[*]}{.spec.claimRef.name}{"\n"}{end}`)
		if count := strings.Count("\n"+left, "\nnode-"); err == nil && count > 0 {
			err = fmt.Errorf("%d are there", count)
		}
		return err
	})
}

// agentMemory keeps the largest of the agents' sizes.
func (s *session) agentMemory(prefix string) error {
	for _, agent := range s.agents {
		if err := agent.running(); err != nil {
			return err
		}
		for what, key := range map[string]string{"VmRSS": "_rss_mib", "RssAnon": "_anon_mib"} {
			value, err := memory(agent.pid, what)
			if err != nil {
				return err
			}
			s.result.raise(prefix+key, value)
		}
	}
	return nil
}

const podsPath = "/api/v1/namespaces/" + space + "/pods"

// podWith is a pod that only holds its volumes.
func podWith(name, node string, claims []string) fields {
	var volumes, mounts []fields
	for i, claim := range claims {
		volume := fmt.Sprintf("v%d", i)
		volumes = append(volumes, fields{"name": volume, "persistentVolumeClaim": fields{"claimName": claim}})
		mounts = append(mounts, fields{"name": volume, "mountPath": "/volumes/" + claim})
	}
	return fields{"apiVersion": "v1", "kind": "Pod", "metadata": fields{"name": name},
		"spec": fields{"automountServiceAccountToken": false, "nodeSelector": fields{"kubernetes.io/hostname": node},
			"volumes": volumes, "containers": []fields{{"name": "main", "image": cluster.BusyboxImage, "imagePullPolicy": "Never",
				"command": []string{"/bin/busybox", "sleep", "86400"}, "volumeMounts": mounts}}}}
}
