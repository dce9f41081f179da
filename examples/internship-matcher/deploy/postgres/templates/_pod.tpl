{{/* All nodes, as the programs read them. */}}
{{- define "nodes" -}}
{{- range $i := until 3 -}}
{{- if $i }},{{ end }}{{ add1 $i }}:postgres-{{ $i }}:postgres-{{ $i }}.postgres-nodes.{{ $.Values.namespace }}.svc
{{- end -}}
{{- end -}}

{{/* Arguments of both programs. */}}
{{- define "arguments" -}}
- -nodes={{ include "nodes" . }}
- -identity=/run/secrets/identity
{{- range $name, $secret := .Values.databases }}
- -database={{ $name }}=/run/secrets/{{ $name }}/password
{{- end }}
{{- end -}}

{{- define "podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10210 # postgres in the image
  runAsGroup: 10210
  fsGroup: 10210 # makes the volumes and secrets usable
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{- define "mounts" -}}
- name: run
  mountPath: /run/postgresql
- name: tmp
  mountPath: /tmp
- name: identity
  mountPath: /run/secrets/identity
  readOnly: true
{{- range $name, $secret := .Values.databases }}
- name: {{ $name }}
  mountPath: /run/secrets/{{ $name }}
  readOnly: true
{{- end }}
{{- end -}}

{{/* What both programs mount; .identity is the Secret of the one. */}}
{{- define "volumes" -}}
- name: run # sockets, and configuration with passwords: never on a disk
  emptyDir:
    medium: Memory
    sizeLimit: 4Mi
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
- name: identity
  secret:
    secretName: {{ .identity }}
    defaultMode: 0440
{{- range $name, $secret := .root.Values.databases }}
- name: {{ $name }}
  secret:
    secretName: {{ $secret }}
    defaultMode: 0440
{{- end }}
{{- end -}}
