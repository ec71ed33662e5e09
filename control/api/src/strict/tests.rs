use serde_json::json;

use super::*;

fn deployment() -> &'static Message {
    schema::kind("apps", "v1", "Deployment").unwrap()
}

fn refused(body: &str) -> String {
    decode_body(deployment(), body.as_bytes()).unwrap_err().message
}

#[test]
fn names_unknown_and_repeated_fields_in_the_order_of_the_text() {
    let body = br#"{"kind":"Deployment","apiVersion":"apps/v1","spec":{"zeta":1,"replicas":1,"replicas":2,
        "template":{"metadata":{"labels":{"a":"b","a":"c"}},"spec":{"containers":[{"name":"c","Image":"x"}]}},"alpha":1}}"#;
    let decoded = decode_body(deployment(), body).unwrap();
    assert_eq!(
        decoded.strict,
        [
            r#"unknown field "spec.zeta""#,
            r#"duplicate field "spec.replicas""#,
            r#"duplicate field "spec.template.metadata.labels.a""#,
            r#"unknown field "spec.template.spec.containers[0].Image""#,
            r#"unknown field "spec.alpha""#,
        ]
    );
    assert_eq!(decoded.value["spec"]["replicas"], json!(2));
    assert_eq!(decoded.value["spec"]["template"]["spec"]["containers"][0], json!({"name": "c", "resources": {}}));
    let status = decoded.strict_status().unwrap();
    let start = "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \"spec.zeta\", ";
    assert!(status.code == 400 && status.message.starts_with(start), "{}", status.message);
}

#[test]
fn reports_wrong_types_as_go_does() {
    let prefix = "Deployment in version \"v1\" cannot be handled as a Deployment: ";
    for (spec, want) in [
        (
            r#"{"replicas":"3"}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"replicas":1.5}"#,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"replicas":3000000000}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"paused":"yes"}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.paused of type bool",
        ),
        (
            r#"{"template":[]}"#,
            "json: cannot unmarshal array into Go struct field DeploymentSpec.spec.template of type v1.PodTemplateSpec",
        ),
        (
            r#"{"template":{"spec":{"dnsPolicy":1}}}"#,
            "json: cannot unmarshal number into Go struct field PodSpec.spec.template.spec.dnsPolicy of type v1.DNSPolicy",
        ),
        (
            r#"{"template":{"spec":{"containers":{}}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            r#"{"template":{"spec":{"containers":[{"env":[{"name":"a","value":1}]}]}}}"#,
            "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            r#"{"template":{"metadata":{"labels":{"a":1}}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.spec.template.metadata.labels of type string",
        ),
        (
            r#"{"template":{"spec":{"containers":[{"resources":{"limits":[]}}]}}}"#,
            "json: cannot unmarshal array into Go struct field ResourceRequirements.spec.template.spec.containers.resources.limits of type v1.ResourceList",
        ),
        (
            r#"{"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":"much"}}}]}}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            r#"{"strategy":{"rollingUpdate":{"maxSurge":true}}}"#,
            "json: cannot unmarshal bool into Go value of type int32",
        ),
    ] {
        let body = format!(r#"{{"kind":"Deployment","apiVersion":"apps/v1","spec":{spec}}}"#);
        assert_eq!(refused(&body), format!("{prefix}{want}"));
    }
}

#[test]
fn a_types_own_decoder_wins_over_an_earlier_error() {
    let body = r#"{"spec":{"replicas":"x","template":{"metadata":{"creationTimestamp":"now"}}}}"#;
    let want = "Deployment in version \"v1\" cannot be handled as a Deployment: parsing time \"now\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"now\" as \"2006\"";
    assert_eq!(refused(body), want);
}

#[test]
fn secrets_must_be_base64() {
    let secret = schema::kind("", "v1", "Secret").unwrap();
    let error = decode_body(secret, br#"{"kind":"Secret","apiVersion":"v1","data":{"a":"no!"}}"#).unwrap_err();
    assert_eq!(
        error.message,
        "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 2"
    );
}

#[test]
fn malformed_bodies_are_summarised() {
    assert_eq!(
        refused(r#"{"kind":"Deployment","apiVersion":"#),
        "the object provided is unrecognized (must be of type Deployment): couldn't get version/kind; json parse error: \
         unexpected end of JSON input ({\"kind\":\"Deployment\",\"apiVersi ...)"
    );
    assert_eq!(
        refused("spec"),
        "the object provided is unrecognized (must be of type Deployment): couldn't get version/kind; json parse error: \
         invalid character 's' looking for beginning of value (73706563)"
    );
}

#[test]
fn nulls_fit_everywhere_and_raw_fields_hold_anything() {
    let body =
        json!({"spec": {"replicas": null, "template": {"spec": {"containers": [{"name": null, "resources": null}]}}}});
    assert_eq!(check(deployment(), &body), Findings::default());
    let revision = schema::kind("apps", "v1", "ControllerRevision").unwrap();
    assert_eq!(check(revision, &json!({"data": {"any": ["thing"]}, "revision": 1})), Findings::default());
}

#[test]
fn protobuf_bodies_take_the_same_way() {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}});
    let body = protobuf::encode(&object).unwrap();
    let decoded = decode_body(schema::kind("", "v1", "ConfigMap").unwrap(), &body).unwrap();
    assert_eq!((decoded.value, decoded.strict), (object, Vec::<String>::new()));
}
