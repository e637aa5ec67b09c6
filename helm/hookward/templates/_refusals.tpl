{{- /* Combinations that could not work, or would not do what they say: refused with what to do. */ -}}

{{- define "hookward.refusals" -}}
{{- include "hookward.refusals.database" . -}}
{{- include "hookward.refusals.callers" . -}}
{{- include "hookward.refusals.stopping" . -}}
{{- include "hookward.refusals.telemetry" . -}}
{{- include "hookward.refusals.reach" . -}}
{{- end -}}

{{- define "hookward.refusals.database" -}}
{{- $roles := include "hookward.roles" . | fromJsonArray -}}
{{- if eq .Values.database.kind "sqlite" -}}
{{- if eq .Values.topology "split" -}}
{{- fail "database.kind sqlite is one process: set topology to single, or database.kind to postgresql" -}}
{{- end -}}
{{- if gt (include "hookward.replicas" (list . "all") | int) 1 -}}
{{- fail "database.kind sqlite is one process: set all.replicas to 1, or database.kind to postgresql" -}}
{{- end -}}
{{- if .Values.all.autoscaling.enabled -}}
{{- fail "database.kind sqlite is one process: set all.autoscaling.enabled to false, or database.kind to postgresql" -}}
{{- end -}}
{{- if .Values.database.existingSecret -}}
{{- fail "database.existingSecret holds the URL of PostgreSQL: leave it out, or set database.kind to postgresql" -}}
{{- end -}}
{{- else if not .Values.database.existingSecret -}}
{{- fail "database.existingSecret is missing: kubectl create secret generic hookward-database --from-literal=url=postgres://USER:PASSWORD@HOST/NAME, and set it to hookward-database; or set database.kind to sqlite" -}}
{{- end -}}
{{- range $roles -}}
{{- $scaling := (index $.Values .).autoscaling -}}
{{- if and $scaling.enabled (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- fail (printf "%s.autoscaling.minReplicas is above maxReplicas" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "hookward.refusals.callers" -}}
{{- $auth := .Values.auth -}}
{{- $file := or (has "certificate" $auth.kinds) (has "jwt" $auth.kinds) -}}
{{- if and $auth.insecureNoAuth $auth.kinds -}}
{{- fail "auth.insecureNoAuth and auth.kinds exclude each other: credentials are asked for or they are not" -}}
{{- end -}}
{{- if not (or $auth.insecureNoAuth $auth.kinds) -}}
{{- fail "auth.kinds is empty, so that whoever reaches the port could do everything: set it to [api-key], or others of docs/AUTHENTICATION.md; where something else keeps strangers away, set auth.insecureNoAuth to true" -}}
{{- end -}}
{{- if and $file (not $auth.existingSecret) -}}
{{- fail "auth.kinds with certificate or jwt needs auth.existingSecret: kubectl create secret generic hookward-auth --from-file=auth.toml" -}}
{{- end -}}
{{- if and $auth.existingSecret (not $file) -}}
{{- fail "auth.existingSecret counts only with certificate or jwt among auth.kinds" -}}
{{- end -}}
{{- if and (has "certificate" $auth.kinds) (not .Values.tls.clientCa.existingSecret) -}}
{{- fail "auth.kinds with certificate needs tls.clientCa.existingSecret: whose certificates are good" -}}
{{- end -}}
{{- if and .Values.tls.clientCa.existingSecret (not .Values.tls.existingSecret) -}}
{{- fail "tls.clientCa.existingSecret needs tls.existingSecret beside it" -}}
{{- end -}}
{{- end -}}

{{- define "hookward.refusals.stopping" -}}
{{- $least := include "hookward.stopSeconds" . | int -}}
{{- $grace := .Values.terminationGracePeriodSeconds -}}
{{- if and $grace (lt (int $grace) $least) -}}
{{- fail (printf "terminationGracePeriodSeconds is %d, and stopping may take %d: preStopSeconds, config.shutdown-grace and 25 more. Raise it, or leave it out" (int $grace) $least) -}}
{{- end -}}
{{- if gt (include "hookward.graceSeconds" . | int) 600 -}}
{{- fail "config.shutdown-grace is above 10m, which the server refuses" -}}
{{- end -}}
{{- end -}}

{{- define "hookward.refusals.telemetry" -}}
{{- if and (eq .Values.otlp.metricsExporter "otlp") (not .Values.otlp.endpoint) -}}
{{- fail "otlp.metricsExporter otlp needs otlp.endpoint: where the collector is" -}}
{{- end -}}
{{- end -}}

{{- define "hookward.refusals.reach" -}}
{{- $policy := .Values.networkPolicy -}}
{{- if and .Values.serviceMonitor.enabled $policy.enabled (not $policy.monitoring) -}}
{{- fail "serviceMonitor.enabled with networkPolicy.enabled needs networkPolicy.monitoring: who may scrape the admin port, such as [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]" -}}
{{- end -}}
{{- if and .Values.prometheusRule.enabled (not .Values.serviceMonitor.enabled) -}}
{{- fail "prometheusRule.enabled needs serviceMonitor.enabled: the alerts tell their series by the labels that it gives" -}}
{{- end -}}
{{- $outside := or .Values.ingress.enabled .Values.grpcRoute.enabled (ne .Values.service.type "ClusterIP") -}}
{{- if and $outside $policy.enabled (eq (toJson $policy.callers) (list (dict "podSelector" dict) | toJson)) -}}
{{- fail "networkPolicy.callers are the pods of this namespace alone: with ingress, grpcRoute or a service.type for callers outside, name who reaches the pods, such as [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress-nginx}}}]" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.enabled needs ingress.host" -}}
{{- end -}}
{{- if and .Values.grpcRoute.enabled (not .Values.grpcRoute.parentRefs) -}}
{{- fail "grpcRoute.enabled needs grpcRoute.parentRefs: the gateways that it belongs to" -}}
{{- end -}}
{{- end -}}
