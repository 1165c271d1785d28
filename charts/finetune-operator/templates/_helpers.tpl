{{- define "finetune-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "finetune-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "finetune-operator.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else if hasPrefix .Release.Name (include "finetune-operator.name" .) -}}
{{- include "finetune-operator.name" . -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "finetune-operator.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "finetune-operator.selector" -}}
app.kubernetes.io/name: {{ include "finetune-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of the pod of `helm test`: not the operator's own, or its Services would select that pod. */}}
{{- define "finetune-operator.smokeSelector" -}}
app.kubernetes.io/name: {{ include "finetune-operator.name" . }}-smoke
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "finetune-operator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "finetune-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: finetune-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* How long the operator's pod waits for a node that is not heard of, where the values' own tolerations name no such taint. */}}
{{- define "finetune-operator.lostNode" -}}
{{- range $key := list "node.kubernetes.io/not-ready" "node.kubernetes.io/unreachable" }}
{{- $named := false }}
{{- range $.Values.tolerations }}
{{- if and (has (default "" .key) (list "" $key)) (has (default "" .effect) (list "" "NoExecute")) }}
{{- $named = true }}
{{- end }}
{{- end }}
{{- if not $named }}
- {key: {{ $key }}, operator: Exists, effect: NoExecute, tolerationSeconds: {{ $.Values.nodeLossSeconds }}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "finetune-operator.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "finetune-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* An image reference from {repository, tag, digest}; call with (list . image). */}}
{{- define "finetune-operator.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "finetune-operator.reportService" -}}
{{- printf "%s-reports" (include "finetune-operator.fullname" .) -}}
{{- end -}}

{{/* Where trainers send their reports. */}}
{{- define "finetune-operator.reportUrl" -}}
{{- printf "https://%s.%s.svc:%d" (include "finetune-operator.reportService" .) .Release.Namespace (int .Values.reports.port) -}}
{{- end -}}

{{/* Whether the operator makes its certificate itself: "true" or nothing. */}}
{{- define "finetune-operator.ownCertificate" -}}
{{- if not (or .Values.reports.tls.existingSecret .Values.reports.tls.certManager.enabled) -}}true{{- end -}}
{{- end -}}

{{/* The Secret of the report server's certificate. The operator's own has another name than one of a chart before 0.2: that one's
     type asked for data at once, and a type cannot be changed. */}}
{{- define "finetune-operator.tlsSecret" -}}
{{- $suffix := ternary "report-cert" "report-tls" (eq (include "finetune-operator.ownCertificate" .) "true") -}}
{{- default (printf "%s-%s" (include "finetune-operator.fullname" .) $suffix) .Values.reports.tls.existingSecret -}}
{{- end -}}

{{/* The names under which trainers reach the report server: the subject alternative names of its certificate. */}}
{{- define "finetune-operator.reportNames" -}}
{{- $service := include "finetune-operator.reportService" . -}}
{{- list (printf "%s.%s.svc" $service .Release.Namespace) (printf "%s.%s.svc.cluster.local" $service .Release.Namespace) (printf "%s.%s" $service .Release.Namespace) | toJson -}}
{{- end -}}

{{/* What the operator may do in the namespaces it watches. Secrets of jobs are named in pods and never read. */}}
{{- define "finetune-operator.rules" -}}
- apiGroups: [finetune-operator.io]
  resources: [finetunejobs]
  verbs: [get, list, watch, delete]
- apiGroups: [finetune-operator.io]
  resources: [finetunejobs/status]
  verbs: [patch]
# Needed for owner references that block deletion, where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [finetune-operator.io]
  resources: [finetunejobs/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, create, delete]
# Patched when the report server's CA changes while workers are at work.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create, patch]
{{- end -}}
