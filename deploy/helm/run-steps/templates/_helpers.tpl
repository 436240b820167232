{{- define "run-steps.name" -}}
{{- if eq .Release.Name .Chart.Name -}}{{ .Release.Name }}{{- else -}}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{- end -}}
{{- end -}}

{{- define "run-steps.selector" -}}
app.kubernetes.io/name: run-steps
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "run-steps.metadata" -}}
name: {{ include "run-steps.name" . }}
labels:
  {{- include "run-steps.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- /* A number of `config`, read as text because Helm reads no TOML before its version 4: table and key, which may be written as `table.key`. Else the default. */ -}}
{{- define "run-steps.setting" -}}
{{- $value := `["']?\s*=\s*[0-9a-z][0-9a-z_.]*` -}}
{{- $inTable := printf `(?m)^[ \t]*\[\s*%s\s*\][^\n]*\n(?:[^\[\n][^\n]*\n|[ \t]*\n)*?[ \t]*["']?%s%s` .table .key $value -}}
{{- $dotted := printf `(?m)^[ \t]*%s[ \t]*\.[ \t]*["']?%s%s` .table .key $value -}}
{{- $found := concat (regexFindAll $inTable .config 1) (regexFindAll $dotted .config 1) -}}
{{- if $found -}}{{ regexReplaceAll `(?s)^.*=\s*` (first $found) "" | replace "_" "" }}{{- else -}}{{ .default }}{{- end -}}
{{- end -}}

{{- /* Refuses a password in the ConfigMap, and values of which one contradicts another: a worker would be killed while it drains or before it helps itself, or be restarted for ever by a probe that asks where nobody listens. */ -}}
{{- define "run-steps.check" -}}
{{- $config := .Values.config -}}
{{- if regexMatch `(?m)^[^#\n]*(sasl|ssl_key)_password["']?\s*=\s*["']+[^"'\s]` $config -}}
{{- fail "config: a password does not belong here: name a file of the Secret (sasl_password_file, ssl_key_password_file)" -}}
{{- end -}}
{{- if eq (include "run-steps.setting" (dict "config" $config "table" "http" "key" "enabled" "default" "true")) "false" -}}
{{- fail "config: http.enabled must not be false: the probes ask /healthz and /readyz" -}}
{{- end -}}
{{- $port := include "run-steps.setting" (dict "config" $config "table" "http" "key" "port" "default" "8080") -}}
{{- if ne $port (.Values.httpPort | int | toString) -}}
{{- fail (printf "httpPort: must be http.port of config, which is 8080 where it is not set (got %d, and %s in config)" (.Values.httpPort | int) $port) -}}
{{- end -}}
{{- $drain := include "run-steps.setting" (dict "config" $config "table" "delivery" "key" "drain_timeout_s" "default" "20") -}}
{{- $commit := include "run-steps.setting" (dict "config" $config "table" "delivery" "key" "commit_timeout_s" "default" "15") -}}
{{- if le (.Values.terminationGracePeriodSeconds | float64) (addf ($drain | float64) ($commit | float64)) -}}
{{- fail (printf "terminationGracePeriodSeconds: must exceed delivery.drain_timeout_s + delivery.commit_timeout_s of config, %s + %s (got %d)" $drain $commit (.Values.terminationGracePeriodSeconds | int)) -}}
{{- end -}}
{{- /* /healthz fails from half of stall_timeout_s on. The kubelet counts failures 10 seconds apart: the last of them may come 10 seconds before livenessSeconds are over. */ -}}
{{- $away := include "run-steps.setting" (dict "config" $config "table" "kafka" "key" "unavailable_after_s" "default" "300") -}}
{{- $stall := include "run-steps.setting" (dict "config" $config "table" "supervisor" "key" "stall_timeout_s" "default" "120") -}}
{{- $least := addf (subf (maxf ($away | float64) ($stall | float64)) (divf ($stall | float64) 2)) 10 -}}
{{- if lt (.Values.livenessSeconds | float64) $least -}}
{{- fail (printf "livenessSeconds: must be at least %g, or the pod is killed before the worker helps itself: the larger of kafka.unavailable_after_s and supervisor.stall_timeout_s of config (%s and %s), less half of the latter, and 10 (got %d)" $least $away $stall (.Values.livenessSeconds | int)) -}}
{{- end -}}
{{- if and .Values.keda.enabled (gt (.Values.keda.minReplicas | int) (.Values.keda.partitions | int)) -}}
{{- fail (printf "keda.minReplicas: must not exceed keda.partitions, the most workers that there may be (got %d and %d)" (.Values.keda.minReplicas | int) (.Values.keda.partitions | int)) -}}
{{- end -}}
{{- end -}}
