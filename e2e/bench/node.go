package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"collage/e2e/cluster"
)

// nodeMemory measures a node agent with every kind registered and many volumes mounted. Kubelet stages and publishes
// them for one real pod, half of the volumes of each kind. The agent is started for it, as on a node that was just
// installed; what one keeps that has worked through all rounds is told beside it.
func (s *session) nodeMemory(ctx context.Context) error {
	if err := s.agentMemory("node_worked_rss_mib", "node_worked_anon_mib"); err != nil {
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
	if err := s.agentMemory("node_empty_rss_mib", "node_empty_anon_mib"); err != nil {
		return err
	}
	node := cluster.Nodes[0].Name
	s.say("node: a pod with %d volumes on %s", s.staged, node)
	l := &load{api: s.api, who: collage, name: "node", claims: s.staged}
	classes := []string{collage.class, localClass}
	names := l.names(s.staged)
	if err := each(ctx, s.staged, func(ctx context.Context, i int) error {
		claim := claimObject(names[i], classes[i%2])
		claim["spec"].(fields)["resources"] = fields{"requests": fields{"storage": "16Mi"}}
		_, err := s.api.do(ctx, http.MethodPost, claimsPath, claim)
		return err
	}); err != nil {
		return err
	}
	if _, err := s.api.do(ctx, http.MethodPost, podsPath, podWith("node", node, names)); err != nil {
		return err
	}
	if err := s.cluster.WaitFor(ctx, "the pod to run", 5*time.Minute, func() error {
		phase, err := s.cluster.Kubectl(ctx, "-n", space, "get", "pod", "node", "-o", "jsonpath={.status.phase}")
		if err == nil && phase != "Running" {
			err = fmt.Errorf("it is %s", phase)
		}
		return err
	}); err != nil {
		return err
	}
	// An ext4 or xfs of our loop devices, once at its staging path and once in the pod.
	text, err := s.cluster.NodeExec(ctx, node, "sh", "-c", "grep -c 'collage.*globalmount.* /dev/loop' /proc/self/mountinfo")
	mounted, _ := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || mounted != s.staged {
		return fmt.Errorf("%d volumes are staged on %s, expected %d: %w", mounted, node, s.staged, err)
	}
	if err := settled(ctx, s.agents[0], time.Minute); err != nil {
		return err
	}
	if err := s.agentMemory("node_rss_mib", "node_anon_mib"); err != nil {
		return err
	}
	if err := s.keepMetrics(ctx); err != nil {
		return err
	}
	s.result.set("node_staged_volumes", float64(mounted))
	s.say("node: %.1f MiB resident, %.1f of it anonymous, with %d volumes staged and published", s.result.values["node_rss_mib"],
		s.result.values["node_anon_mib"], mounted)
	if _, err := s.api.do(ctx, http.MethodDelete, podsPath+"/node?gracePeriodSeconds=1", nil); err != nil {
		return err
	}
	if err := each(ctx, s.staged, func(ctx context.Context, i int) error {
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

// agentMemory keeps the larger of the agents.
func (s *session) agentMemory(rssKey, anonKey string) error {
	for _, agent := range s.agents {
		for what, key := range map[string]string{"VmRSS": rssKey, "RssAnon": anonKey} {
			value, err := memory(agent.pid, what)
			if err != nil {
				return err
			}
			s.result.raise(key, value)
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
