{{/* Names, labels, images. */}}

{{- define "rd.name" -}}
{{- $own := ternary .Release.Name (printf "%s-robot-dispatch" .Release.Name) (contains "robot-dispatch" .Release.Name) -}}
{{- /* With the longest pool's name, and what KEDA puts before it, a label's 63 characters. */ -}}
{{- trunc 30 $own | trimSuffix "-" -}}
{{- end }}

{{/* What selects pods: (list $ "gateway"). */}}
{{- define "rd.selector" -}}
app.kubernetes.io/name: robot-dispatch
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "rd.labels" -}}
{{ include "rd.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- end }}

{{- define "rd.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "rd.rabbitmq" -}}{{ include "rd.name" . }}-rabbitmq{{- end }}
{{- define "rd.redis" -}}{{ include "rd.name" . }}-redis{{- end }}

{{/* DISPATCH_LANES from the value `lanes`. */}}
{{- define "rd.lanes" -}}
{{- $parts := list -}}
{{- range $lane, $types := .Values.lanes }}{{ $parts = append $parts (printf "%s=%s" $lane (join "," $types)) }}{{ end -}}
{{- join ";" $parts -}}
{{- end }}

{{/* The pools with their defaults, as JSON; ends the rendering where they can't work together. */}}
{{- define "rd.pools" -}}
{{- $pools := dict -}}
{{- $consumed := dict -}}
{{- $always := 0 -}}
{{- $lanes := append (keys .Values.lanes) "default" -}}
{{- range $name, $own := .Values.workers.pools }}
{{- $pool := mergeOverwrite (deepCopy $.Values.workers.defaults) ($own | default dict) -}}
{{- $pools = set $pools $name $pool -}}
{{- range $pool.lanes }}
{{- if not (has . $lanes) }}{{ fail (printf "workers.pools.%s.lanes: there is no lane %q in `lanes`" $name .) }}{{ end -}}
{{- end }}
{{- range (ternary $lanes $pool.lanes (empty $pool.lanes)) }}{{ $consumed = set $consumed . true }}{{ end -}}
{{- $least := ternary $pool.autoscaling.minReplicas $pool.replicas $pool.autoscaling.enabled -}}
{{- $always = add $always $least -}}
{{- if and $pool.autoscaling.enabled (gt (int $pool.autoscaling.minReplicas) (int $pool.autoscaling.maxReplicas)) }}
{{- fail (printf "workers.pools.%s.autoscaling: minReplicas exceeds maxReplicas" $name) }}
{{- end -}}
{{- if gt (int $pool.processes.min) (int $pool.processes.max) }}
{{- fail (printf "workers.pools.%s.processes: min exceeds max" $name) }}
{{- end -}}
{{- end -}}
{{- range $lanes }}
{{- if not (hasKey $consumed .) }}{{ fail (printf "workers.pools: no pool consumes the lane %q" .) }}{{ end -}}
{{- end -}}
{{- if lt (int $always) 1 }}
{{- fail "workers.pools: one pool must always have a replica (autoscaling.minReplicas or replicas of 1): schedules, sweeper, janitor, jobs and the end of pauses run in workers" }}
{{- end -}}
{{- toJson $pools -}}
{{- end }}

{{/* The queues of a lane, as JSON: (list $ lane). The default one has a queue for each shard. */}}
{{- define "rd.queues" -}}
{{- $root := index . 0 -}}
{{- $lane := index . 1 -}}
{{- $queues := list (include "rd.queue" $lane) -}}
{{- if eq $lane "default" }}
{{- range until (int $root.Values.shards) }}{{ if . }}{{ $queues = append $queues (printf "robot.task.q.shard.%d" .) }}{{ end }}{{ end }}
{{- end -}}
{{- toJson $queues -}}
{{- end }}

{{/* The queue of a lane. */}}
{{- define "rd.queue" -}}
robot.task.q{{ if ne . "default" }}.{{ . }}{{ end }}
{{- end }}
