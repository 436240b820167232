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
