{{- define "diffusionad.name" -}}
{{- printf "%s" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "diffusionad.selector" -}}
app.kubernetes.io/name: diffusionad
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end -}}

{{- define "diffusionad.gatewaySelector" -}}
app.kubernetes.io/name: diffusionad
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- define "diffusionad.labels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Nobody but Prometheus can tell from outside how `diffusionad serve` with TLS does: it keeps its
     metrics on loopback. */}}
{{- define "diffusionad.hasMetrics" -}}
{{- if not (and (eq .Values.server "embedded") .Values.tls.enabled) }}yes{{ end -}}
{{- end -}}

{{- define "diffusionad.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "diffusionad.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}
