{{- /* Pods: what Pod Security calls restricted, for every one. */ -}}

{{- define "hookward.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "hookward.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end -}}

{{- /* Variables of Services are left out: one called hookward-log would set HOOKWARD_LOG_PORT, and
nothing here reads them. */ -}}
{{- define "hookward.podBase" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "hookward.podSecurity" . | nindent 2 }}
{{- end -}}

{{- /* The template of a role's pods; takes a list of the context and the role. */ -}}
{{- define "hookward.pod" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $values := $root.Values -}}
{{- $settings := index $values $role -}}
{{- $sqlite := eq $values.database.kind "sqlite" -}}
metadata:
  labels:
    {{- include "hookward.labels" . | nindent 4 }}
    {{- with $settings.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $settings.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "hookward.serviceAccount" $root }}
  {{- include "hookward.podBase" $root | nindent 2 }}
  terminationGracePeriodSeconds: {{ default (include "hookward.stopSeconds" $root) $values.terminationGracePeriodSeconds }}
  {{- with $settings.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $settings.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $settings.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $settings.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if and $settings.topologySpread.enabled (not $sqlite) }}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - topologyKey: {{ . }}
      maxSkew: 1
      whenUnsatisfiable: {{ $settings.topologySpread.whenUnsatisfiable }}
      labelSelector:
        matchLabels:
          {{- include "hookward.selector" (list $root $role) | nindent 10 }}
      # Those of the release before do not count.
      matchLabelKeys:
        - pod-template-hash
    {{- end }}
  {{- end }}
  containers:
    - name: hookward
      image: {{ include "hookward.image" $root }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      args:
        - serve
      env:
        {{- include "hookward.environment" . | nindent 8 }}
      ports:
        {{- if ne $role "dispatch" }}
        - name: grpc
          containerPort: 50051
        {{- end }}
        - name: admin
          containerPort: 8080
      # Over HTTP, since a process that dispatches has no gRPC port, and the kubelet's gRPC probes
      # speak no TLS. /healthz does not ask for the database: a restart would not bring it back.
      startupProbe:
        httpGet:
          path: /healthz
          port: admin
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 150
      livenessProbe:
        httpGet:
          path: /healthz
          port: admin
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      readinessProbe:
        httpGet:
          path: /readyz
          port: admin
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 2
      lifecycle:
        # Balancers learn of the end while calls are still taken.
        preStop:
          sleep:
            seconds: {{ $values.preStopSeconds }}
      resources:
        {{- toYaml $settings.resources | nindent 8 }}
      securityContext:
        {{- include "hookward.containerSecurity" $root | nindent 8 }}
      {{- $mounts := include "hookward.mounts" . }}
      {{- if or $mounts $sqlite }}
      volumeMounts:
        {{- if $sqlite }}
        - name: data
          mountPath: /var/lib/hookward
        {{- end }}
        {{- with $mounts }}
        {{- . | trim | nindent 8 }}
        {{- end }}
      {{- end }}
  {{- with include "hookward.volumes" . }}
  volumes:
    {{- . | trim | nindent 4 }}
  {{- end }}
{{- end -}}

{{- /* The pod that runs `hookward migrate`, for a chart and a component. */ -}}
{{- define "hookward.migration" -}}
{{- $ := index . 0 -}}
metadata:
  labels:
    {{- include "hookward.labels" . | nindent 4 }}
spec:
  restartPolicy: Never
  {{- include "hookward.podBase" $ | nindent 2 }}
  containers:
    - name: {{ index . 1 }}
      image: {{ include "hookward.image" $ }}
      imagePullPolicy: {{ $.Values.image.pullPolicy }}
      args:
        - migrate
      env:
        - name: HOOKWARD_DATABASE_URL_FILE
          value: /etc/hookward/database/url
      resources:
        {{- toYaml $.Values.migration.resources | nindent 8 }}
      securityContext:
        {{- include "hookward.containerSecurity" $ | nindent 8 }}
      volumeMounts:
        - name: database
          mountPath: /etc/hookward/database
          readOnly: true
  volumes:
    - name: database
      secret:
        secretName: {{ default $.Values.database.existingSecret $.Values.migration.existingSecret }}
        defaultMode: 0440
{{- end }}
