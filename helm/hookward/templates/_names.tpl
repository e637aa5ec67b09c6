{{- /* Names and labels. */ -}}

{{- define "hookward.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* Short enough for what is put behind it. */ -}}
{{- define "hookward.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "hookward.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "hookward.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "hookward.serviceAccount" -}}
{{- $created := ternary (include "hookward.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $created .Values.serviceAccount.name -}}
{{- end -}}

{{- /* The roles that there are processes of, as JSON. */ -}}
{{- define "hookward.roles" -}}
{{- ternary (list "api" "dispatch") (list "all") (eq .Values.topology "split") | toJson -}}
{{- end -}}

{{- /* The role that answers calls. */ -}}
{{- define "hookward.callRole" -}}
{{- ternary "api" "all" (eq .Values.topology "split") -}}
{{- end -}}

{{- /* What the pods of a role belong to; takes a list of the context and the role. */ -}}
{{- define "hookward.workload" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $name := include "hookward.fullname" $root -}}
{{- ternary $name (printf "%s-%s" $name $role) (eq $role "all") -}}
{{- end -}}

{{- /* How many processes of a role; takes a list of the context and the role. */ -}}
{{- define "hookward.replicas" -}}
{{- $root := index . 0 -}}
{{- $settings := index $root.Values (index . 1) -}}
{{- if kindIs "invalid" $settings.replicas -}}
{{- ternary 1 2 (eq $root.Values.database.kind "sqlite") -}}
{{- else -}}
{{- $settings.replicas | int -}}
{{- end -}}
{{- end -}}

{{- /* Labels that never change; takes a list of the context and the component. */ -}}
{{- define "hookward.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "hookward.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* All labels; takes a list of the context and the component. */ -}}
{{- define "hookward.labels" -}}
{{- $root := index . 0 -}}
{{ include "hookward.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "hookward.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}
