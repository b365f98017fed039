{{/* Where RabbitMQ and Redis are. Passwords come from variables of the container: $(NAME). */}}

{{- define "rd.amqpPort" -}}
{{- $tls := .Values.rabbitmq.tls.enabled -}}
{{- $own := ternary 0 (int .Values.rabbitmq.external.port) .Values.rabbitmq.create -}}
{{ $own | default (ternary 5671 5672 $tls) }}
{{- end }}

{{- define "rd.managementPort" -}}
{{- $tls := .Values.rabbitmq.tls.enabled -}}
{{- $own := ternary 0 (int .Values.rabbitmq.external.managementPort) .Values.rabbitmq.create -}}
{{ $own | default (ternary 15671 15672 $tls) }}
{{- end }}

{{- define "rd.rabbitmqHosts" -}}
{{- if .Values.rabbitmq.create -}}
{{ list (printf "%s.%s.svc" (include "rd.rabbitmq" .) .Release.Namespace) | toJson }}
{{- else -}}
{{ required "rabbitmq.external.hosts: needed with rabbitmq.create: false" .Values.rabbitmq.external.hosts | toJson }}
{{- end -}}
{{- end }}

{{- define "rd.managementHosts" -}}
{{- if and (not .Values.rabbitmq.create) .Values.rabbitmq.external.managementHosts -}}
{{ .Values.rabbitmq.external.managementHosts | toJson }}
{{- else -}}
{{ include "rd.rabbitmqHosts" . }}
{{- end -}}
{{- end }}

{{/* The URL of a role: (list $ "gateway"). */}}
{{- define "rd.brokerUrl" -}}
{{- $root := index . 0 -}}
{{- $role := upper (index . 1) -}}
{{- $scheme := ternary "amqps" "amqp" $root.Values.rabbitmq.tls.enabled -}}
{{- $urls := list -}}
{{- range include "rd.rabbitmqHosts" $root | fromJsonArray }}
{{- $urls = append $urls (printf "%s://$(RABBITMQ_%s_USERNAME):$(RABBITMQ_%s_PASSWORD)@%s:%s/%s" $scheme $role $role . (include "rd.amqpPort" $root) $root.Values.rabbitmq.vhost) }}
{{- end -}}
{{- join ";" $urls -}}
{{- end }}

{{- define "rd.managementUrl" -}}
{{- $root := index . 0 -}}
{{- $role := upper (index . 1) -}}
{{- $scheme := ternary "https" "http" $root.Values.rabbitmq.tls.enabled -}}
{{- $urls := list -}}
{{- range include "rd.managementHosts" $root | fromJsonArray }}
{{- $urls = append $urls (printf "%s://$(RABBITMQ_%s_USERNAME):$(RABBITMQ_%s_PASSWORD)@%s:%s" $scheme $role $role . (include "rd.managementPort" $root)) }}
{{- end -}}
{{- join ";" $urls -}}
{{- end }}

{{- define "rd.redisUrl" -}}
{{- $redis := .Values.redis -}}
{{- if $redis.create -}}
redis://$(REDIS_USERNAME):$(REDIS_PASSWORD)@{{ include "rd.redis" . }}:6379/0
{{- else -}}
{{- $hosts := required "redis.external.hosts: needed with redis.create: false" $redis.external.hosts -}}
{{ $redis.external.scheme }}://$(REDIS_USERNAME):$(REDIS_PASSWORD)@{{ join "," $hosts }}{{ $redis.external.path }}
{{- end -}}
{{- end }}
