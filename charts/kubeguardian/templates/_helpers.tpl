{{- define "labels" -}}
app.kubernetes.io/name: kubeguardian
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* image: a dict of the name, the digest and the root */}}
{{- define "image" -}}
{{ .root.Values.image.repository }}/{{ .name }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}{{ with .digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* agentNamespace is the agents', or the release's. */}}
{{- define "agentNamespace" -}}
{{ .Values.agent.namespace | default .Release.Namespace }}
{{- end }}

{{/* authoritySecret: the one with the authority of the webhooks, if it is in one. */}}
{{- define "authoritySecret" -}}
{{- if .Values.server.authoritySecret }}{{ .Values.server.authoritySecret }}{{ else if gt (int .Values.server.replicas) 1 }}webhook-authority{{ end }}
{{- end }}

{{/* busFiles: by what a bus elsewhere knows who connects, and is known itself. */}}
{{- define "busFiles" -}}
{{- with .Values.bus.external }}
{{- if and .ca (not .credentialsSecret) }}{{ fail "the authority of a bus is beside its credentials: set bus.external.credentialsSecret" }}{{ end }}
{{- if .credentialsSecret }}
credentialsFile: /etc/kubeguardian/bus/nats.creds
{{- end }}
{{- if .ca }}
caFile: /etc/kubeguardian/bus/ca.crt
{{- end }}
{{- end }}
{{- end }}

{{/* busPorts: those of a bus elsewhere, as ports of a NetworkPolicy. */}}
{{- define "busPorts" -}}
{{- $ports := list }}
{{- range splitList "," .Values.bus.external.url }}{{ $ports = append $ports (splitList ":" . | last | int) }}{{ end }}
{{- $rules := list }}
{{- range uniq $ports }}{{ $rules = append $rules (dict "port" . "protocol" "TCP") }}{{ end }}
{{- $rules | toYaml }}
{{- end }}

{{/* serverConfig: what follows from values, and over it server.config. */}}
{{- define "serverConfig" -}}
{{- $web := dict "listen" ":8443" -}}
{{- if .Values.server.tlsSecret -}}
{{- $_ := set $web "certFile" "/etc/kubeguardian/tls/tls.crt" -}}
{{- $_ := set $web "keyFile" "/etc/kubeguardian/tls/tls.key" -}}
{{- else -}}
{{- $_ := set $web "ownAuthority" true -}}
{{- end -}}
{{- if .Values.server.tokenSecret -}}
{{- $_ := set $web "tokenFile" "/etc/kubeguardian/login/token" -}}
{{- else if gt (int .Values.server.replicas) 1 -}}
{{- $_ := set $web "login" (dict "token" false) -}}
{{- end -}}
{{- $admission := dict -}}
{{- if and .Values.agent.enabled (ne (include "agentNamespace" .) .Release.Namespace) -}}
{{- $_ := set $admission "exemptNamespaces" (list (include "agentNamespace" .)) -}}
{{- end -}}
{{- $webhook := dict "listen" ":9443" "service" (dict "namespace" .Release.Namespace "name" "kubeguardian" "port" 443) -}}
{{- with include "authoritySecret" . }}{{ $_ := set $webhook "authoritySecret" . }}{{ end -}}
{{- $bus := dict -}}
{{- if .Values.bus.external.url -}}
{{- $external := dict "url" .Values.bus.external.url "replicas" .Values.bus.external.replicas -}}
{{- $_ := set $bus "external" (mustMerge $external (include "busFiles" . | fromYaml)) -}}
{{- else if .Values.agent.enabled -}}
{{- $_ := set $bus "listen" ":4222" -}}
{{- $_ := set $bus "hosts" (list (printf "kubeguardian.%s.svc" .Release.Namespace)) -}}
{{- $_ := set $bus "serviceAccounts" (list (printf "%s/kubeguardian-agent" (include "agentNamespace" .))) -}}
{{- $_ := set $bus "authorityConfigMap" (printf "%s/kubeguardian-authority" (include "agentNamespace" .)) -}}
{{- $_ := set $bus "maxMiB" .Values.bus.maxMiB -}}
{{- end -}}
{{- if .Values.bus.leafNodes.enabled -}}
{{- if not .Values.bus.leafNodes.hosts }}{{ fail "a hub needs the names by which clusters reach it: set bus.leafNodes.hosts, see docs/clusters.md" }}{{ end -}}
{{- $_ := set $bus "leafNodes" (dict "listen" ":7422" "hosts" .Values.bus.leafNodes.hosts "clusters" "/etc/kubeguardian/clusters/clusters") -}}
{{- end -}}
{{- with .Values.bus.hub }}{{ if .url -}}
{{- if not .keySecret }}{{ fail "a cluster reports to a hub by its key: set bus.hub.keySecret, see docs/clusters.md" }}{{ end -}}
{{- $hub := dict "url" .url "keyFile" "/etc/kubeguardian/hub/hub.key" -}}
{{- if .ca }}{{ $_ := set $hub "caFile" "/etc/kubeguardian/hub/ca.crt" }}{{ end -}}
{{- $_ := set $bus "hub" $hub -}}
{{- end }}{{ end -}}
{{- if gt (int .Values.server.replicas) 1 -}}
{{- if not .Values.database.urlSecret }}{{ fail "several replicas need one PostgreSQL: set database.urlSecret, see docs/database.md" }}{{ end -}}
{{- if and .Values.agent.enabled (not .Values.bus.external.url) }}{{ fail "several replicas need a bus that they share: set bus.external.url, see docs/bus.md" }}{{ end -}}
{{- end -}}
{{- if .Values.policies.fromCluster -}}
{{- $_ := set $admission "fromCluster" true -}}
{{- end -}}
{{- $config := dict
  "dataDir" "/var/lib/kubeguardian"
  "web" $web
  "webhook" $webhook
  "retention" (dict "alerts" .Values.retention.alerts "decisions" .Values.retention.decisions "maxMiB" (int .Values.retention.maxMiB))
-}}
{{- with $bus }}{{ $_ := set $config "bus" . }}{{ end -}}
{{- if .Values.database.urlSecret }}{{ $_ := set $config "database" (dict "urlFile" "/etc/kubeguardian/database/url") }}{{ end -}}
{{- with $admission }}{{ $_ := set $config "admission" . }}{{ end -}}
{{- mustMergeOverwrite $config (deepCopy .Values.server.config) | toYaml }}
{{- end }}

{{/* agentConfig: what follows from values, and over it agent.config. */}}
{{- define "agentConfig" -}}
{{- $config := dict "root" "/proc/1/root" "proc" "/proc" "status" ":9400" "statusOpen" true -}}
{{- if .Values.agent.enforcement }}{{ $_ := set $config "actions" "/var/lib/kubeguardian-agent/actions.jsonl" }}{{ end -}}
{{- if .Values.bus.external.url -}}
{{- $_ := set $config "server" (mustMerge (dict "url" .Values.bus.external.url) (include "busFiles" . | fromYaml)) -}}
{{- else -}}
{{- $_ := set $config "server" (dict "url" (printf "tls://kubeguardian.%s.svc:4222" .Release.Namespace) "caFile" "/etc/kubeguardian/authority/ca.crt" "tokenFile" "/var/run/secrets/kubeguardian/token") -}}
{{- end -}}
{{- mustMergeOverwrite $config (deepCopy .Values.agent.config) | toYaml }}
{{- end }}

{{- define "restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "nobody" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}
