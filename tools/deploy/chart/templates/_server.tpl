{{/* The command line of NVIDIA's tritonserver. A test starts a real Triton with it. */}}
{{- define "diffusionad.tritonArgs" -}}
- --model-repository={{ .Values.repository.path }}
{{- if ne .Values.hostConfig "default" }}
- --model-config-name={{ .Values.hostConfig }}
{{- end }}
- --disable-auto-complete-config
- --exit-timeout-secs={{ .Values.drain.exitSeconds }}
- --grpc-port={{ .Values.service.grpcPort }}
- --allow-http=false
- --allow-metrics=true
- --metrics-port={{ .Values.service.metricsPort }}
# Of no use here, and two known holes begin with them. The key is the pod's own and told to nobody.
- --grpc-restricted-protocol=shared-memory,trace,logging,statistics:diffusionad-key=$(POD_UID)
{{- if eq .Values.control.mode "explicit" }}
- --model-control-mode=explicit
- --strict-readiness=false
- --exit-on-error=true
- --grpc-restricted-protocol=model-repository:diffusionad-admin-key=$(ADMIN_KEY)
{{- range .Values.categories }}
- --load-model={{ . }}
{{- end }}
{{- else }}
- --model-control-mode=none
- --strict-readiness=true
- --exit-on-error=true
{{- end }}
{{- if .Values.tls.enabled }}
- --grpc-use-ssl=true
- --grpc-server-cert=/run/tls/server/tls.crt
- --grpc-server-key=/run/tls/server/tls.key
{{- if .Values.tls.clientCaSecret }}
- --grpc-use-ssl-mutual=true
- --grpc-root-cert=/run/tls/clients/ca.crt
{{- end }}
{{- end }}
{{- end -}}

{{/* The command line of `diffusionad serve`, which closes the same calls by itself. */}}
{{- define "diffusionad.embeddedArgs" -}}
- serve
- --repository={{ .Values.repository.path }}
- --model-config-name={{ .Values.hostConfig }}
- --host=0.0.0.0
- --unsafe-bind
- --grpc-port={{ .Values.service.grpcPort }}
- --metrics-port={{ .Values.service.metricsPort }}
- --ready-timeout={{ .Values.probes.startupSeconds }}
- --max-restarts=0  # Kubernetes starts the pod anew, and counts
- --log-format={{ .Values.logFormat }}
{{- if .Values.verify.enabled }}
- --verify
{{- include "diffusionad.trustedKeys" . }}
{{- end }}
{{- if eq .Values.control.mode "explicit" }}
- --model-control-mode=explicit
- --admin-key-file=/run/admin/key
{{- range .Values.categories }}
- --load-model={{ . }}
{{- end }}
{{- end }}
{{- if .Values.tls.enabled }}
- --tls-cert=/run/tls/server/tls.crt
- --tls-key=/run/tls/server/tls.key
{{- if .Values.tls.clientCaSecret }}
- --tls-client-ca=/run/tls/clients/ca.crt
{{- end }}
{{- end }}
{{- end -}}

{{/* For the commands that verify. The ConfigMap is in verify.yaml. */}}
{{- define "diffusionad.trustedKeys" -}}
{{- range $name, $_ := .Values.verify.trustedKeys }}
- --trusted-key=/run/trusted/{{ $name }}
{{- end }}
{{- end -}}

{{/* An image through every category, over TLS if the server speaks it. A full queue is an answer:
     pods that leave or start anew because there is much to do would leave more to the others. */}}
{{- define "diffusionad.probe" -}}
exec:
  command:
    - diffusionad
    - health
    - --deep
    - --allow-busy
    - --url=localhost:{{ .Values.service.grpcPort }}
    - --timeout={{ sub .Values.probes.timeoutSeconds 2 }}
    {{- if eq .Values.control.mode "explicit" }}
    - --admin-key-file=/run/admin/key
    {{- end }}
    {{- if .Values.tls.enabled }}
    - --ca-cert=/run/tls/probe/ca.crt
    {{- if .Values.tls.clientCaSecret }}
    - --client-cert=/run/tls/probe/tls.crt
    - --client-key=/run/tls/probe/tls.key
    {{- end }}
    {{- end }}
timeoutSeconds: {{ .Values.probes.timeoutSeconds }}
periodSeconds: {{ .Values.probes.periodSeconds }}
{{- end -}}

{{- define "diffusionad.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: shm, mountPath: /dev/shm}
{{- if ne .Values.repository.kind "baked" }}
- {name: repository, mountPath: {{ .Values.repository.path }}, readOnly: true}
{{- end }}
{{- if eq .Values.hostConfig "gpu" }}
- {name: tensorrt, mountPath: /var/cache/diffusionad/tensorrt}
{{- end }}
{{- if .Values.control.adminKeySecret }}
- {name: admin, mountPath: /run/admin, readOnly: true}
{{- end }}
{{- if and .Values.verify.trustedKeys (eq .Values.server "embedded") }}
- {name: trusted, mountPath: /run/trusted, readOnly: true}
{{- end }}
{{- if .Values.tls.enabled }}
- {name: tls-server, mountPath: /run/tls/server, readOnly: true}
- {name: tls-probe, mountPath: /run/tls/probe, readOnly: true}
{{- if .Values.tls.clientCaSecret }}
- {name: tls-clients, mountPath: /run/tls/clients, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{/* Secrets belong to root and are read by the pod's group: the client refuses what all can read. */}}
{{- define "diffusionad.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ .Values.sharedMemory }}}
{{- with .Values.repository }}
{{- if eq .kind "pvc" }}
- name: repository
  persistentVolumeClaim: {claimName: {{ .claim }}, readOnly: true}
{{- else if eq .kind "image" }}
- name: repository
  image: {reference: {{ .image | quote }}, pullPolicy: IfNotPresent}
{{- else if eq .kind "bucket" }}
- name: repository
  emptyDir: {sizeLimit: {{ .bucket.size }}}
{{- end }}
{{- end }}
{{- if eq .Values.hostConfig "gpu" }}
- name: tensorrt
  {{- if .Values.tensorrtCache.claim }}
  persistentVolumeClaim: {claimName: {{ .Values.tensorrtCache.claim }}}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- end }}
{{- with .Values.control.adminKeySecret }}
- name: admin
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- if .Values.verify.trustedKeys }}
- name: trusted
  configMap: {name: {{ include "diffusionad.name" . }}-trusted}
{{- end }}
{{- if .Values.tls.enabled }}
- name: tls-server
  secret: {secretName: {{ .Values.tls.secret }}, defaultMode: 0440}
- name: tls-probe
  secret: {secretName: {{ .Values.tls.probeSecret }}, defaultMode: 0440}
{{- with .Values.tls.clientCaSecret }}
- name: tls-clients
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- end -}}
