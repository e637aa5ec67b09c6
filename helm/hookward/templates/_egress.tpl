{{- /* Where pods may connect to. Hookward judges every address itself (docs/SECURITY.md); this is
the second belt, and has the same table. */ -}}

{{- /* A rule; takes a list of its peers, its protocol and its ports. No peers: anywhere. */ -}}
{{- define "hookward.rule" -}}
{{- $peers := index . 0 -}}
{{- $ports := index . 1 -}}
- ports:
    {{- range $ports }}
    - protocol: {{ index . 0 }}
      port: {{ index . 1 }}
      {{- if gt (len .) 2 }}
      endPort: {{ index . 2 }}
      {{- end }}
    {{- end }}
  {{- with $peers }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- /* What the migration needs too: names, the database, and the rules of your own. */ -}}
{{- define "hookward.egress.common" -}}
{{- $policy := .Values.networkPolicy -}}
{{- include "hookward.rule" (list $policy.dns.to (list (list "UDP" 53) (list "TCP" 53))) }}
{{- if ne .Values.database.kind "sqlite" }}
{{ include "hookward.rule" (list $policy.database.to (list (list "TCP" $policy.database.port))) }}
{{- end }}
{{- with $policy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Public addresses: src/domain/address.rs has the same, and .ci/chart compares them. What
config.egress-deny closes is closed here as well. */ -}}
{{- define "hookward.egress.public" -}}
- ipBlock:
    cidr: 0.0.0.0/0
    except:
      - 0.0.0.0/8
      - 10.0.0.0/8
      - 100.64.0.0/10
      - 127.0.0.0/8
      - 168.63.129.16/32
      - 169.254.0.0/16
      - 172.16.0.0/12
      - 192.0.0.0/24
      - 192.0.2.0/24
      - 192.31.196.0/24
      - 192.52.193.0/24
      - 192.88.99.0/24
      - 192.168.0.0/16
      - 192.175.48.0/24
      - 198.18.0.0/15
      - 198.51.100.0/24
      - 203.0.113.0/24
      - 224.0.0.0/4
      - 240.0.0.0/4
      {{- range get .Values.config "egress-deny" | default list }}
      {{- if not (contains ":" .) }}
      - {{ contains "/" . | ternary . (printf "%s/32" .) }}
      {{- end }}
      {{- end }}
- ipBlock:
    cidr: 2000::/3
    except:
      - 2001::/23
      - 2001:db8::/32
      - 3fff::/20
      - 2002::/16
      - 2620:4f:8000::/48
      - 3ffe::/16
      {{- range get .Values.config "egress-deny" | default list }}
      {{- if regexMatch "^[23][0-9a-fA-F]{3}:" . }}
      - {{ contains "/" . | ternary . (printf "%s/128" .) | quote }}
      {{- end }}
      {{- end }}
{{- range get .Values.config "egress-nat64" | default list }}
- ipBlock:
    cidr: {{ . | quote }}
{{- end }}
{{- end -}}

{{- /* A rule for one entry of config.egress-allow: CIDR[:PORTS][@ORGANIZATION]. Policies know no
organizations. Without ports all are open. */ -}}
{{- define "hookward.egress.allowed" -}}
{{- $place := regexReplaceAll "@.*$" . "" -}}
{{- $network := $place -}}
{{- $ports := "" -}}
{{- if hasPrefix "[" $place -}}
{{- $network = regexReplaceAll "^\\[([^\\]]*)\\](/[0-9]+)?.*$" $place "${1}${2}" -}}
{{- $ports = regexFind ":[-0-9,]+$" (regexReplaceAll "^\\[[^\\]]*\\](/[0-9]+)?" $place "") -}}
{{- else if regexMatch "^[0-9.]+(/[0-9]+)?(:[-0-9,]+)?$" $place -}}
{{- $network = regexFind "^[0-9.]+(/[0-9]+)?" $place -}}
{{- $ports = regexFind ":[-0-9,]+$" $place -}}
{{- else if regexMatch "/[0-9]+:" $place -}}
{{- $network = regexFind "^.*/[0-9]+" $place -}}
{{- $ports = regexFind ":[-0-9,]+$" $place -}}
{{- end -}}
{{- if not (contains "/" $network) -}}
{{- $network = printf "%s/%s" $network (ternary "128" "32" (contains ":" $network)) -}}
{{- end -}}
- to:
    - ipBlock:
        cidr: {{ $network | quote }}
  {{- with $ports }}
  ports:
    {{- range trimPrefix ":" . | splitList "," }}
    {{- $ends := splitList "-" . }}
    - protocol: TCP
      port: {{ first $ends }}
      {{- if gt (len $ends) 1 }}
      endPort: {{ last $ends }}
      {{- end }}
    {{- end }}
  {{- end }}
{{- end -}}

{{- /* What a role may reach; takes a list of the context and the role. */ -}}
{{- define "hookward.egress" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $values := $root.Values -}}
{{- $proxy := get $values.config "egress-proxy" -}}
{{- include "hookward.egress.common" $root }}
{{- with $values.otlp.endpoint }}
{{- $port := regexFind ":[0-9]+/?$" . | trimPrefix ":" | trimSuffix "/" | int }}
{{ include "hookward.rule" (list $values.networkPolicy.otlp.to (list (list "TCP" $port))) }}
{{- end }}
{{- /* A process that only answers calls sends nothing; it asks token issuers for their keys. */}}
{{- $issuers := and (ne $role "dispatch") (has "jwt" $values.auth.kinds) }}
{{- $public := include "hookward.egress.public" $root | fromYamlArray }}
{{- if and (ne $role "api") (not $proxy) }}
{{ include "hookward.rule" (list $public (list (list "TCP" 443) (list "TCP" 8443))) }}
{{- range get $values.config "egress-allow" | default list }}
{{ include "hookward.egress.allowed" . }}
{{- end }}
{{- else if $issuers }}
{{ include "hookward.rule" (list $public (list (list "TCP" 443))) }}
{{- end }}
{{- if and $proxy (ne $role "api") }}
{{- $port := regexFind "[0-9]+$" $proxy | int }}
{{ include "hookward.rule" (list $values.networkPolicy.proxy.to (list (list "TCP" $port))) }}
{{- end }}
{{- end -}}
