{{/* Variables of the containers. A process gets the secrets that it needs and no others: dispatch's launcher/environments.py. */}}

{{/* A variable from a Secret: (list NAME secret key). */}}
{{- define "rd.fromSecret" -}}
- name: {{ index . 0 }}
  valueFrom: {secretKeyRef: {name: {{ index . 1 }}, key: {{ index . 2 }}}}
{{- end }}

{{/* User and password of a role at RabbitMQ: (list $ "gateway"). */}}
{{- define "rd.rabbitmqUser" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $secret := get $root.Values.rabbitmq.users $role -}}
{{ include "rd.fromSecret" (list (printf "RABBITMQ_%s_USERNAME" (upper $role)) $secret "username") }}
{{ include "rd.fromSecret" (list (printf "RABBITMQ_%s_PASSWORD" (upper $role)) $secret "password") }}
{{- end }}

{{/* RabbitMQ for a process: (list $ role managementRole). */}}
{{- define "rd.rabbitmqEnv" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $management := index . 2 -}}
{{- include "rd.rabbitmqUser" (list $root $role) }}
{{- if ne $role $management }}
{{ include "rd.rabbitmqUser" (list $root $management) }}
{{- end }}
- name: DISPATCH_BROKER_URL
  value: {{ include "rd.brokerUrl" (list $root $role) | quote }}
- name: DISPATCH_MANAGEMENT_URL
  value: {{ include "rd.managementUrl" (list $root $management) | quote }}
{{- if and $root.Values.rabbitmq.tls.enabled $root.Values.rabbitmq.tls.caSecret }}
- name: DISPATCH_BROKER_TLS_CA
  value: /etc/robot-dispatch/rabbitmq-ca/ca.crt
{{- end }}
{{- end }}

{{- define "rd.redisEnv" -}}
{{- $root := index . 0 -}}
{{- $secret := get $root.Values.redis.users (index . 1) -}}
{{ include "rd.fromSecret" (list "REDIS_USERNAME" $secret "username") }}
{{ include "rd.fromSecret" (list "REDIS_PASSWORD" $secret "password") }}
- name: DISPATCH_REDIS_URL
  value: {{ include "rd.redisUrl" $root | quote }}
{{- if and (not $root.Values.redis.create) $root.Values.redis.tls.caSecret }}
- name: DISPATCH_REDIS_TLS_CA
  value: /etc/robot-dispatch/redis-ca/ca.crt
{{- end }}
{{- end }}

{{/* Keys that gateways and workers share. */}}
{{- define "rd.keysEnv" -}}
{{- $names := dict "messageKeys" "DISPATCH_MESSAGE_KEYS" "encryptionKeys" "DISPATCH_ENCRYPTION_KEYS" "callbackSecrets" "DISPATCH_CALLBACK_SECRETS" "webhookSecrets" "DISPATCH_WEBHOOK_SECRETS" -}}
{{- range $value, $name := $names }}
{{- with get $.Values.secrets $value }}{{- if .secret }}
{{ include "rd.fromSecret" (list $name .secret .key) }}
{{- end }}{{- end }}
{{- end }}
{{- end }}

{{/* Settings of all processes, and those of this one, which win: (list $ own). */}}
{{- define "rd.settingsEnv" -}}
{{- $root := index . 0 -}}
- name: DISPATCH_APPLY_TOPOLOGY
  value: "false"
{{- with include "rd.lanes" $root }}
- name: DISPATCH_LANES
  value: {{ . | quote }}
{{- end }}
{{- if gt (int $root.Values.shards) 1 }}
- name: DISPATCH_SHARDS
  value: {{ int $root.Values.shards | quote }}
{{- end }}
{{- range $name, $value := mergeOverwrite (deepCopy $root.Values.settings) (index . 1) }}
- name: {{ $name }}
  value: {{ include "rd.text" $value | quote }}
{{- end }}
{{- end }}

{{/* YAML's numbers are floats here: 10000000 would be 1e+07. */}}
{{- define "rd.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end }}

{{/* Traces: (list $ "robot-gateway"). */}}
{{- define "rd.otelEnv" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.otel.endpoint }}
- name: OTEL_SERVICE_NAME
  value: {{ index . 1 }}
- name: OTEL_TRACES_EXPORTER
  value: otlp
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ $root.Values.otel.endpoint | quote }}
- name: OTEL_EXPORTER_OTLP_PROTOCOL
  value: http/protobuf
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ $root.Values.otel.ratio | quote }}
{{- end }}
{{- end }}
