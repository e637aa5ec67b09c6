{{- /* Settings of the processes: variables of the environment, and the files that they name. */ -}}

{{- /* A number would be written as 1e+06. */ -}}
{{- define "hookward.value" -}}
{{- if kindIs "slice" . -}}
{{- join " " . -}}
{{- else if kindIs "float64" . -}}
{{- int64 . -}}
{{- else -}}
{{- toString . -}}
{{- end -}}
{{- end -}}

{{- define "hookward.grace" -}}
{{- get .Values.config "shutdown-grace" | default "20s" -}}
{{- end -}}

{{- /* The grace period of the process in whole seconds. */ -}}
{{- define "hookward.graceSeconds" -}}
{{- $text := include "hookward.grace" . -}}
{{- $number := regexFind "^[0-9]+" $text | int -}}
{{- if hasSuffix "ms" $text -}}
{{- div (add $number 999) 1000 -}}
{{- else if hasSuffix "m" $text -}}
{{- mul $number 60 -}}
{{- else -}}
{{- $number -}}
{{- end -}}
{{- end -}}

{{- /* The sum of what happens between the order to stop and the end. Twenty-five: calls under way,
outcomes, the audit log and traces where the database is away (docs/OPERATIONS.md, Stopping). */ -}}
{{- define "hookward.stopSeconds" -}}
{{- add .Values.preStopSeconds (include "hookward.graceSeconds" .) 25 -}}
{{- end -}}

{{- /* Variables of a process; takes a list of the context and the role. */ -}}
{{- define "hookward.environment" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $values := $root.Values -}}
- name: HOOKWARD_ROLE
  value: {{ $role }}
{{- if eq $values.database.kind "sqlite" }}
- name: HOOKWARD_DATABASE_URL
  value: sqlite:/var/lib/hookward/hookward.db
{{- else }}
- name: HOOKWARD_DATABASE_URL_FILE
  value: /etc/hookward/database/url
{{- end }}
- name: HOOKWARD_ADMIN_LISTEN
  value: {{ printf "%s:8080" $values.listenAddress | quote }}
{{- /* A process that dispatches has no gRPC port, and needs none of its secrets. */}}
{{- if ne $role "dispatch" }}
- name: HOOKWARD_GRPC_LISTEN
  value: {{ printf "%s:50051" $values.listenAddress | quote }}
{{- if $values.auth.insecureNoAuth }}
- name: HOOKWARD_INSECURE_NO_AUTH
  value: "true"
{{- else }}
- name: HOOKWARD_AUTH
  value: {{ join "," $values.auth.kinds }}
{{- end }}
{{- if $values.auth.existingSecret }}
- name: HOOKWARD_AUTH_FILE
  value: /etc/hookward/auth/auth.toml
{{- end }}
{{- if $values.tls.existingSecret }}
- name: HOOKWARD_TLS_CERT
  value: /etc/hookward/tls/tls.crt
- name: HOOKWARD_TLS_KEY
  value: /etc/hookward/tls/tls.key
{{- end }}
{{- if $values.tls.clientCa.existingSecret }}
- name: HOOKWARD_TLS_CLIENT_CA
  value: /etc/hookward/client-ca/{{ $values.tls.clientCa.key }}
{{- end }}
{{- end }}
{{- if $values.encryption.existingSecret }}
- name: HOOKWARD_ENCRYPTION_KEYS_FILE
  value: /etc/hookward/encryption
{{- end }}
{{- if $values.profiles }}
- name: HOOKWARD_PROFILES
  value: /etc/hookward/profiles
{{- end }}
{{- if $values.egressCa.configMap }}
- name: HOOKWARD_EGRESS_CA
  value: /etc/hookward/egress-ca/{{ $values.egressCa.key }}
{{- end }}
- name: HOOKWARD_SHUTDOWN_GRACE
  value: {{ include "hookward.grace" $root }}
{{- range $flag, $value := omit $values.config "shutdown-grace" }}
- name: HOOKWARD_{{ $flag | upper | replace "-" "_" }}
  value: {{ include "hookward.value" $value | quote }}
{{- end }}
{{- $otlp := $values.otlp }}
{{- range $name, $value := dict
  "OTEL_EXPORTER_OTLP_ENDPOINT" $otlp.endpoint
  "OTEL_EXPORTER_OTLP_PROTOCOL" $otlp.protocol
  "OTEL_METRICS_EXPORTER" $otlp.metricsExporter
  "OTEL_METRIC_EXPORT_INTERVAL" $otlp.metricExportInterval
  "OTEL_SERVICE_NAME" $otlp.serviceName
  "OTEL_RESOURCE_ATTRIBUTES" $otlp.resourceAttributes
  "OTEL_TRACES_SAMPLER" $otlp.tracesSampler
  "OTEL_TRACES_SAMPLER_ARG" $otlp.tracesSamplerArg }}
{{- if $value }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* The same files as a list of name, kind and source, as JSON; takes the context and the role. */ -}}
{{- define "hookward.files" -}}
{{- $values := (index . 0).Values -}}
{{- $role := index . 1 -}}
{{- $files := list -}}
{{- if ne $values.database.kind "sqlite" -}}
{{- $files = append $files (list "database" "secret" $values.database.existingSecret) -}}
{{- end -}}
{{- if ne $role "dispatch" -}}
{{- $files = append $files (list "auth" "secret" $values.auth.existingSecret) -}}
{{- $files = append $files (list "tls" "secret" $values.tls.existingSecret) -}}
{{- $files = append $files (list "client-ca" "secret" $values.tls.clientCa.existingSecret) -}}
{{- end -}}
{{- $files = append $files (list "encryption" "secret" $values.encryption.existingSecret) -}}
{{- if $values.profiles -}}
{{- $name := printf "%s-profiles" (include "hookward.fullname" (index . 0)) -}}
{{- $files = append $files (list "profiles" "configMap" $name) -}}
{{- end -}}
{{- $files = append $files (list "egress-ca" "configMap" $values.egressCa.configMap) -}}
{{- $named := list -}}
{{- range $files -}}
{{- if index . 2 -}}
{{- $named = append $named . -}}
{{- end -}}
{{- end -}}
{{- toJson $named -}}
{{- end -}}

{{- define "hookward.mounts" -}}
{{- range include "hookward.files" . | fromJsonArray }}
- name: {{ index . 0 }}
  mountPath: /etc/hookward/{{ index . 0 }}
  readOnly: true
{{- end }}
{{- end -}}

{{- /* Readable for the process's group and for nobody else. */ -}}
{{- define "hookward.volumes" -}}
{{- range include "hookward.files" . | fromJsonArray }}
- name: {{ index . 0 }}
{{- if eq (index . 1) "secret" }}
  secret:
    secretName: {{ index . 2 }}
    defaultMode: 0440
{{- else }}
  configMap:
    name: {{ index . 2 }}
    defaultMode: 0444
{{- end }}
{{- end }}
{{- end -}}
