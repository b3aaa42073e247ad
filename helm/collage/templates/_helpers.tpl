{{- define "collage.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "collage.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "collage.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Where the agents run. The operator and the Secrets are in the release's namespace. */}}
{{- define "collage.nodeNamespace" -}}
{{- default .Release.Namespace .Values.node.namespace -}}
{{- end -}}

{{/* What selects pods. Call with (dict "root" $ "component" "operator"). Immutable in Deployment and DaemonSet. */}}
{{- define "collage.selectorLabels" -}}
app.kubernetes.io/name: {{ include "collage.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Of pods: nothing that changes with the chart's version alone, so that an upgrade restarts no more than it must. */}}
{{- define "collage.podLabels" -}}
{{ include "collage.selectorLabels" . }}
app.kubernetes.io/part-of: collage
{{- with .root.Values.customLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "collage.labels" -}}
{{ include "collage.selectorLabels" . }}
app.kubernetes.io/part-of: collage
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.customLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The schema refuses an empty repository; this refuses a missing one, so that `helm lint` needs no values. */}}
{{- define "collage.repository" -}}
{{- required "image.repository is required, and Collage is published in no registry: build both images and push them (make push IMAGE=registry.example.com/collage:TAG), then give --set image.repository=registry.example.com/collage --set image.tag=TAG" .Values.image.repository -}}
{{- end -}}

{{- define "collage.tag" -}}
{{- default .Chart.AppVersion .Values.image.tag -}}
{{- end -}}

{{- define "collage.operatorImage" -}}
{{- printf "%s:%s" (include "collage.repository" .) (include "collage.tag" .) -}}
{{- end -}}

{{- define "collage.nodeImage" -}}
{{- $repository := .Values.image.nodeRepository | default (printf "%s-node" (include "collage.repository" .)) -}}
{{- printf "%s:%s" $repository (include "collage.tag" .) -}}
{{- end -}}

{{/* A host directory is mounted at the same path in the agent's pod, so it must not hide what the image or the pod has there. */}}
{{- define "collage.checkDirectory" -}}
{{- $path := .path -}}
{{- range $taken := list "/bin" "/boot" "/dev" "/etc" "/lib" "/lib64" "/proc" "/root" "/run" "/sbin" "/sys" "/tmp" "/usr" -}}
{{- if hasPrefix (printf "%s/" $taken) (printf "%s/" $path) -}}
{{- fail (printf "%s: %s lies in %s, which the agent's pod needs itself; use a directory such as /srv/share or /var/lib/collage/volumes" $.field $path $taken) -}}
{{- end -}}
{{- end -}}
{{- range $whole := list "/var" "/var/lib" "/var/run" $.kubelet -}}
{{- if eq $whole $path -}}
{{- fail (printf "%s: %s is too wide; use a directory of its own, such as /srv/share or /var/lib/collage/volumes" $.field $path) -}}
{{- end -}}
{{- end -}}
{{- if hasPrefix (printf "%s/" $.kubelet) (printf "%s/" $path) -}}
{{- fail (printf "%s: %s lies below kubeletPath (%s), where the kubelet removes what it does not know; use another directory" $.field $path $.kubelet) -}}
{{- end -}}
{{- end -}}

{{/*
A cluster holds one Collage: the agents' sockets, the CSIDrivers and the StorageNodes have one name each. Helm by itself would
install a second release beside the first. `helm template` sees no cluster and checks nothing.
*/}}
{{- define "collage.checkAlone" -}}
{{- range (lookup "apps/v1" "DaemonSet" "" "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- if and (eq (get $labels "app.kubernetes.io/part-of") "collage") (eq (get $labels "app.kubernetes.io/component") "node") -}}
{{- $release := get $labels "app.kubernetes.io/instance" -}}
{{- $annotations := .metadata.annotations | default dict -}}
{{- $namespace := get $annotations "meta.helm.sh/release-namespace" -}}
{{- if not $namespace -}}
{{- fail (printf "Collage is installed in this cluster already, without Helm: DaemonSet %s/%s. Delete that first: kubectl delete -f manifests/install.yaml (volumes, StorageBackends and running pods are kept)" .metadata.namespace .metadata.name) -}}
{{- end -}}
{{- if or (ne $release $.Release.Name) (ne $namespace $.Release.Namespace) -}}
{{- fail (printf "Collage is installed in this cluster already, as release %s in namespace %s; a cluster holds one. Upgrade that release, or remove it first: helm uninstall %s -n %s (volumes, StorageBackends and running pods are kept)" $release $namespace $release $namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
