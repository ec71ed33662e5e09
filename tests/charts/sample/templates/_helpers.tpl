{{/* The name of everything in a release. */}}
{{- define "sample.name" -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* What the Deployment's and the Service's selectors ask for. */}}
{{- define "sample.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sample.labels" -}}
{{ include "sample.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* A Job that a hook runs: a dictionary of the context, the hook, its weight, its delete policy and its command. */}}
{{- define "sample.hook" -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "sample.name" .context }}-{{ .hook }}
  labels: {{- include "sample.labels" .context | nindent 4 }}
  annotations:
    helm.sh/hook: {{ .hook }}
    helm.sh/hook-weight: {{ .weight | default 0 | quote }}
    helm.sh/hook-delete-policy: {{ .policy }}
    helm.sh/hook-output-log-policy: hook-failed
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: main
          image: {{ .context.Values.image }}
          command: [sh, -c, {{ .command | quote }}]
{{- end }}
