{{- define "aqaa.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name }}{{ end }}
{{- end }}

{{- /* Labels that select pods of a component: list root component. */ -}}
{{- define "aqaa.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "aqaa.labels" -}}
{{ include "aqaa.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ (index . 0).Chart.Name }}-{{ (index . 0).Chart.Version }}
{{- end }}

{{- define "aqaa.keysSecret" -}}
{{ .Values.apiKeys.existingSecret | default (printf "%s-keys" (include "aqaa.name" .)) }}
{{- end }}

{{- define "aqaa.decoderSecret" -}}
{{ .Values.decoder.existingSecret | default (printf "%s-decoder" (include "aqaa.name" .)) }}
{{- end }}

{{- define "aqaa.hasModels" -}}
{{- with .Values.models }}{{ if or .existingClaim .hostPath .init.image }}true{{ end }}{{ end }}
{{- end }}

{{- define "aqaa.modelsVolume" -}}
- name: models
  {{- with .Values.models }}
  {{- if .existingClaim }}
  persistentVolumeClaim: {claimName: {{ .existingClaim | quote }}, readOnly: true}
  {{- else if .hostPath }}
  hostPath: {path: {{ .hostPath | quote }}, type: Directory}
  {{- else }}
  emptyDir: {sizeLimit: {{ .init.sizeLimit | quote }}}
  {{- end }}
  {{- end }}
{{- end }}

{{- define "aqaa.modelsInit" -}}
{{- with .Values.models }}
{{- if and .init.image (not .existingClaim) (not .hostPath) }}
initContainers:
  - name: models
    image: {{ .init.image | quote }}
    command: {{ toJson .init.command }}
    volumeMounts: [{name: models, mountPath: {{ .mountPath | quote }}}]
    securityContext:
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL]}
{{- end }}
{{- end }}
{{- end }}

{{- /* A secret's value that stays what it was at the first install: list root secret key. */ -}}
{{- define "aqaa.lasting" -}}
{{- $found := lookup "v1" "Secret" (index . 0).Release.Namespace (index . 1) -}}
{{- if $found }}{{ index $found.data (index . 2) }}{{ else }}{{ randAlphaNum 40 | b64enc }}{{ end }}
{{- end }}

{{- define "aqaa.routerConfig" -}}
{{- $decoder := printf "%s-decoder" (include "aqaa.name" .) -}}
global
  maxconn 4096
  hard-stop-after 40s
defaults
  mode http
  timeout connect 1s
  timeout client 1h
  timeout server 1h
  timeout check 500ms
  option http-no-delay
  option abortonclose
resolvers cluster
  parse-resolv-conf
  hold valid 5s
frontend gateways
  bind :8000
  monitor-uri /health
  monitor fail if { nbsrv(vllm) lt 1 }
  default_backend vllm
backend vllm
  balance hdr(X-Session-ID)
  hash-type consistent
  option httpchk GET /health
  http-check expect status 200
  option redispatch 1
  retries 2
  retry-on conn-failure empty-response
  default-server inter 300ms fall 2 rise 1 on-marked-down shutdown-sessions
  {{- range $i := until (int $.Values.decoder.replicas) }}
  server d{{ $i }} {{ $decoder }}-{{ $i }}.{{ $decoder }}.{{ $.Release.Namespace }}.svc.{{ $.Values.router.clusterDomain }}:8000 check resolvers cluster init-addr none
  {{- end }}
frontend stats
  bind :8404
  http-request use-service prometheus-exporter if { path /metrics }
{{- end }}
