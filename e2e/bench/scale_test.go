package main

import (
	"encoding/json"
	"testing"
)

func TestCopiesOfAClaimAndItsVolumeAreBoundToEachOther(t *testing.T) {
	var p pattern
	for text, into := range map[string]*fields{
		`{"metadata": {"name": "a", "namespace": "bench", "uid": "u", "resourceVersion": "7", "annotations": {"pv.kubernetes.io/bind-completed": "yes"},
		  "finalizers": ["kubernetes.io/pvc-protection"], "managedFields": [{}]}, "spec": {"volumeName": "pvc-u"}, "status": {"phase": "Bound"}}`: &p.claim,
		`{"metadata": {"name": "pvc-u", "uid": "v"}, "spec": {"csi": {"volumeHandle": "bench/pvc-u", "driver": "d"},
		  "claimRef": {"name": "a", "namespace": "bench", "uid": "u", "resourceVersion": "5"}}}`: &p.volume} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	names := map[string]bool{}
	for i := range 1000 {
		claim := p.claimOf(i)
		var created object
		created.Metadata.Name, created.Metadata.UID, created.Metadata.ResourceVersion = claim["metadata"].(fields)["name"].(string), "new", "9"
		volume := p.volumeOf(i, created)
		name := volume["metadata"].(fields)["name"].(string)
		spec := volume["spec"].(fields)
		reference := spec["claimRef"].(fields)
		if names[name] || len(name) != len("pvc-00000000-0000-0000-0000-000000000000") {
			t.Fatalf("name %q", name)
		}
		names[name] = true
		if claim["spec"].(fields)["volumeName"] != name || reference["name"] != created.Metadata.Name || reference["uid"] != "new" ||
			spec["csi"].(fields)["volumeHandle"] != "bench/"+name {
			t.Fatalf("claim %v\nvolume %v", claim, volume)
		}
		metadata := claim["metadata"].(fields)
		if metadata["uid"] != nil || metadata["resourceVersion"] != nil || metadata["managedFields"] != nil || metadata["finalizers"] == nil {
			t.Fatalf("metadata %v", metadata)
		}
	}
	if p.claim["metadata"].(fields)["name"] != "a" || p.volume["spec"].(fields)["claimRef"].(fields)["uid"] != "u" {
		t.Error("the pattern itself was changed")
	}
}

func TestPodsOfTheScaleHaveAGateAndARealSize(t *testing.T) {
	content, err := json.Marshal(scaledPod(7))
	if err != nil {
		t.Fatal(err)
	}
	if gates := scaledPod(7)["spec"].(fields)["schedulingGates"].([]fields); len(gates) != 1 || len(content) < 4000 {
		t.Errorf("%d gates, %d bytes", len(gates), len(content))
	}
}
