{{- define "kaprobe.selectorLabels" -}}
app.kubernetes.io/name: kaprobe
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kaprobe.labels" -}}
{{ include "kaprobe.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "kaprobe.image" -}}
{{- $repository := required "image.repository: where have you pushed the image?" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}
