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

{{/* serverConfig: what follows from values, and over it server.config. */}}
{{- define "serverConfig" -}}
{{- $web := dict "listen" ":8443" -}}
{{- if .Values.server.tlsSecret -}}
{{- $_ := set $web "certFile" "/etc/kubeguardian/tls/tls.crt" -}}
{{- $_ := set $web "keyFile" "/etc/kubeguardian/tls/tls.key" -}}
{{- else -}}
{{- $_ := set $web "ownAuthority" true -}}
{{- end -}}
{{- $admission := dict -}}
{{- if and .Values.agent.enabled (ne (include "agentNamespace" .) .Release.Namespace) -}}
{{- $_ := set $admission "exemptNamespaces" (list (include "agentNamespace" .)) -}}
{{- end -}}
{{- if .Values.policies.fromCluster -}}
{{- $_ := set $admission "fromCluster" true -}}
{{- end -}}
{{- $config := dict
  "dataDir" "/var/lib/kubeguardian"
  "web" $web
  "webhook" (dict "listen" ":9443" "service" (dict "namespace" .Release.Namespace "name" "kubeguardian" "port" 443))
-}}
{{- with $admission }}{{ $_ := set $config "admission" . }}{{ end -}}
{{- mustMergeOverwrite $config (deepCopy .Values.server.config) | toYaml }}
{{- end }}

{{/* agentConfig: what follows from values, and over it agent.config. */}}
{{- define "agentConfig" -}}
{{- $config := dict "root" "/proc/1/root" "proc" "/proc" "status" ":9400" "statusOpen" true -}}
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
