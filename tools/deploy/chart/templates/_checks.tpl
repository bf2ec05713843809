{{/* What the schema cannot say: values that only make sense together. Each failure names the values
     and the remedy. */}}
{{- define "diffusionad.checks" -}}
{{- $v := .Values -}}
{{- if not $v.image.repository }}{{ fail "image.repository is empty: name the image that you built from tools/deploy/images" }}{{ end -}}
{{- if not $v.image.digest }}{{ fail "image.digest is empty: pin what you tested, as sha256:...; tags move" }}{{ end -}}
{{- with $v.repository -}}
{{- if and (eq .kind "pvc") (not .claim) }}{{ fail "repository.kind is pvc: name the claim in repository.claim" }}{{ end -}}
{{- if and (eq .kind "image") (not .image) }}{{ fail "repository.kind is image: name it in repository.image, with its digest" }}{{ end -}}
{{- if and (eq .kind "bucket") (not (and .bucket.image .bucket.source)) }}{{ fail "repository.kind is bucket: give repository.bucket.image and repository.bucket.source" }}{{ end -}}
{{- end -}}
{{- if and (eq $v.server "embedded") (gt (int $v.gpu.count) 0) }}{{ fail "server is embedded, whose image serves on CPUs: set gpu.count to 0 and hostConfig to cpu, or server to triton" }}{{ end -}}
{{- if and (has $v.hostConfig (list "gpu" "cuda")) (eq (int $v.gpu.count) 0) }}{{ fail (printf "hostConfig is %s, with which no server starts without a GPU, and gpu.count is 0: set hostConfig to cpu or gpu.count to 1" $v.hostConfig) }}{{ end -}}
{{- with $v.verify -}}
{{- if and .trustedKeys (not .enabled) }}{{ fail "verify.trustedKeys are named, and nothing is verified: set verify.enabled to true, or leave them out" }}{{ end -}}
{{- if and .enabled (eq $v.server "triton") -}}
{{- if not .image }}{{ fail "verify.enabled: NVIDIA's Triton verifies nothing; give verify.image, of images/cpu.Dockerfile, with which an init container does" }}{{ end -}}
{{- if eq $v.repository.kind "baked" }}{{ fail "verify.enabled: repository.kind is baked, and the models in the server's own image cannot be reached from another one; use another kind, or server embedded" }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if eq $v.control.mode "explicit" -}}
{{- if not $v.control.adminKeySecret }}{{ fail "control.mode is explicit: name the Secret with the admin key in control.adminKeySecret, or nobody could load anything" }}{{ end -}}
{{- if not $v.categories }}{{ fail "control.mode is explicit: name what is loaded at start in categories" }}{{ end -}}
{{- else if and $v.categories (eq $v.control.mode "none") }}{{ fail "categories are named, and control.mode none loads everything: set control.mode to explicit, or leave categories empty" }}{{ end -}}
{{- if $v.tls.enabled -}}
{{- if $v.gateway.enabled }}{{ fail "tls.enabled and gateway.enabled: the gateway ends TLS and speaks plain text to the server; turn one off" }}{{ end -}}
{{- if not (and $v.tls.secret $v.tls.probeSecret) }}{{ fail "tls.enabled: give tls.secret, and tls.probeSecret with what the probes trust and show" }}{{ end -}}
{{- if and (eq $v.server "embedded") (or $v.monitoring.podMonitor (ne $v.autoscaling.kind "none")) }}{{ fail "server is embedded with TLS, which keeps its metrics on loopback: turn off monitoring.podMonitor and autoscaling, or use the gateway in place of tls" }}{{ end -}}
{{- end -}}
{{- if $v.gateway.enabled -}}
{{- if not (and $v.gateway.image $v.gateway.tlsSecret $v.gateway.tokensSecret) }}{{ fail "gateway.enabled: give gateway.image, gateway.tlsSecret and gateway.tokensSecret" }}{{ end -}}
{{- end -}}
{{- if and (eq $v.autoscaling.kind "keda") (not $v.autoscaling.prometheus) }}{{ fail "autoscaling.kind is keda: give the address of Prometheus in autoscaling.prometheus" }}{{ end -}}
{{- if gt (int $v.autoscaling.min) (int $v.autoscaling.max) }}{{ fail (printf "autoscaling.min (%d) is more than autoscaling.max (%d)" (int $v.autoscaling.min) (int $v.autoscaling.max)) }}{{ end -}}
{{- if ge (int $v.probes.timeoutSeconds) (int $v.probes.periodSeconds) }}{{ fail "probes.timeoutSeconds must be shorter than probes.periodSeconds, or probes run over each other" }}{{ end -}}
{{- end -}}
