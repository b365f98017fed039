{{/* What every pod of ours has. */}}

{{- define "rd.podSecurity" -}}
{runAsNonRoot: true, runAsUser: 10001, runAsGroup: 10001, fsGroup: 10001, seccompProfile: {type: RuntimeDefault}}
{{- end }}

{{- define "rd.containerSecurity" -}}
{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
{{- end }}

{{/* The pod's own fields: (list $ component account). A process namespace of the pod has a first process that reaps orphans. */}}
{{- define "rd.pod" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- if index . 2 }}
serviceAccountName: {{ include "rd.name" $root }}
{{- end }}
automountServiceAccountToken: false
enableServiceLinks: false
shareProcessNamespace: true
securityContext: {{ include "rd.podSecurity" $root }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ include "rd.selector" (list $root $component) | nindent 8 }}
{{- end }}

{{/* The container's own fields. */}}
{{- define "rd.container" -}}
image: {{ include "rd.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext: {{ include "rd.containerSecurity" . }}
{{- end }}

{{/* Authorities that it trusts: (list $ redis), and its only writable directory. */}}
{{- define "rd.mounts" -}}
{{- $root := index . 0 -}}
- {name: tmp, mountPath: /tmp}
{{- if and $root.Values.rabbitmq.tls.enabled $root.Values.rabbitmq.tls.caSecret }}
- {name: rabbitmq-ca, mountPath: /etc/robot-dispatch/rabbitmq-ca, readOnly: true}
{{- end }}
{{- if and (index . 1) (not $root.Values.redis.create) $root.Values.redis.tls.caSecret }}
- {name: redis-ca, mountPath: /etc/robot-dispatch/redis-ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "rd.volumes" -}}
{{- $root := index . 0 -}}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: 64Mi}
{{- if and $root.Values.rabbitmq.tls.enabled $root.Values.rabbitmq.tls.caSecret }}
- name: rabbitmq-ca
  secret: {secretName: {{ $root.Values.rabbitmq.tls.caSecret }}, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- if and (index . 1) (not $root.Values.redis.create) $root.Values.redis.tls.caSecret }}
- name: redis-ca
  secret: {secretName: {{ $root.Values.redis.tls.caSecret }}, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- end }}

{{/* Annotations of pods: (list $ port); where Prometheus scrapes. */}}
{{- define "rd.annotations" -}}
{{- $root := index . 0 -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ index . 1 | quote }}
prometheus.io/path: /metrics
{{- with $root.Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}
