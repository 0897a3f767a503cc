{{- define "stepback.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end -}}
{{- end }}

{{/* The labels that select a part's pods: (list . "controller") */}}
{{- define "stepback.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "stepback.labels" -}}
{{- $root := index . 0 -}}
{{ include "stepback.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
{{- end }}

{{/* An image: (list . "controller") */}}
{{- define "stepback.image" -}}
{{- $root := index . 0 -}}
{{ $root.Values.image.registry }}/{{ index . 1 }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- end }}

{{/* The name that resolves to every engine which is ready: they come and go without a restart. */}}
{{- define "stepback.engineUrls" -}}
dns+http://{{ include "stepback.name" . }}-engine:8000
{{- end }}

{{/* The Secret with the key `url`, where controllers share a database. */}}
{{- define "stepback.databaseSecret" -}}
{{- if .Values.database.existingSecret }}{{ .Values.database.existingSecret }}
{{- else if .Values.database.enabled }}{{ include "stepback.name" . }}-database
{{- end }}
{{- end }}

{{- define "stepback.podSecurity" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- /* A null takes an id away: OpenShift gives a namespace its own. */}}
{{- range $name, $id := .Values.podSecurityContext }}
{{- if not (kindIs "invalid" $id) }}
{{ $name }}: {{ if kindIs "float64" $id }}{{ int64 $id }}{{ else }}{{ toJson $id }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "stepback.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "stepback.keysSecret" -}}
{{- if .Values.keys.existingSecret }}{{ .Values.keys.existingSecret }}
{{- else if .Values.keys.file }}{{ include "stepback.name" . }}-keys
{{- end }}
{{- end }}

{{/* Settings by name as environment variables. */}}
{{- define "stepback.env" -}}
{{- range $name, $value := . }}
- name: STEPBACK_{{ $name | snakecase | upper }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{/* What controllers show to engines, where there is a Secret for it. */}}
{{- define "stepback.engineKey" -}}
{{- with .Values.engine.existingKeySecret }}
- name: STEPBACK_ENGINE_API_KEY
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: api-key}
{{- end }}
{{- end }}

{{- define "stepback.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
