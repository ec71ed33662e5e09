//! Certificates: chosen by name, replaced, missing, garbage; and requests on the wrong connection.

use serde_json::json;

use crate::api_server::{ApiServer, Streaming, eventually};
use crate::backend::Backend;
use crate::client::{Connection, Wire, get};
use crate::objects::{NAMESPACE, certificate, class, ingress, rule, secret, served};
use crate::process::Gateway;

async fn shown(gateway: &Gateway, name: &str) -> Vec<u8> {
    Connection::open(gateway.https, Wire::Https1(name)).await.unwrap().certificate().unwrap().to_vec()
}

/// Waits until a name is served with a certificate.
async fn until_shown(gateway: &Gateway, name: &str, certificate: &[u8]) {
    for _ in 0..500 {
        if shown(gateway, name).await == certificate {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{name} does not get its certificate");
}

fn reasons(api: &ApiServer, ingress: &str) -> Vec<String> {
    let events = api.all("events").into_iter().filter(|event| event["involvedObject"]["name"] == ingress);
    events.map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_name_picks_the_certificate_and_the_default_is_for_the_rest() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let web = Backend::start("web", 0).await;
    served(&api, "web", [&web]);
    let own = certificate(&api, "own", "a.test");
    let wild = certificate(&api, "wild", "*.w.test");
    let unused = certificate(&api, "unused", "u.test");
    ingress(
        &api,
        "main",
        json!({
            "tls": [{"hosts": ["a.test"], "secretName": "own"}, {"hosts": ["*.w.test"], "secretName": "wild"}],
            "rules": [rule("a.test", "Prefix", "/", "web"), rule("b.test", "Prefix", "/", "web")],
        }),
    );
    let gateway = Gateway::start(&api, &[]).await;
    assert_eq!(shown(&gateway, "a.test").await, own);
    assert_eq!(shown(&gateway, "A.TEST").await, own);
    assert_eq!(shown(&gateway, "x.w.test").await, wild);
    let default = shown(&gateway, "b.test").await;
    assert!(![&own, &wild, &unused].contains(&&default));
    for name in ["", "x.y.w.test", "u.test", "unknown"] {
        assert_eq!(shown(&gateway, name).await, default, "{name:?}");
    }
    let renewed = certificate(&api, "own", "a.test");
    until_shown(&gateway, "a.test", &renewed).await;
}

#[tokio::test]
async fn the_default_certificate_can_be_given() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let given = certificate(&api, "given", "*.example.com");
    let gateway = Gateway::start(&api, &["--default-ssl-certificate", &format!("{NAMESPACE}/given")]).await;
    assert_eq!(shown(&gateway, "any.example.com").await, given);
    api.delete("secrets", NAMESPACE, "given");
    for _ in 0..500 {
        if shown(&gateway, "any.example.com").await != given {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("a deleted certificate is still served");
}

#[tokio::test]
async fn a_bad_secret_falls_back_is_reported_and_recovers() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let web = Backend::start("web", 0).await;
    served(&api, "web", [&web]);
    secret(&api, "garbage", "kubernetes.io/tls", "not a certificate", "not a key");
    secret(&api, "opaque", "Opaque", "x", "y");
    let good = certificate(&api, "good", "good.test");
    for (name, secret) in [("garbage", "garbage"), ("absent", "absent"), ("opaque", "opaque"), ("good", "good")] {
        let host = format!("{name}.test");
        ingress(
            &api,
            name,
            json!({"tls": [{"hosts": [host], "secretName": secret}], "rules": [rule(&host, "Prefix", "/", "web")]}),
        );
    }
    let gateway = Gateway::start(&api, &[]).await;
    let default = shown(&gateway, "unknown").await;
    for name in ["garbage.test", "absent.test", "opaque.test"] {
        assert_eq!(shown(&gateway, name).await, default);
        assert_eq!(get(gateway.https, Wire::Https2(name), name, "/").await.status, 200, "{name}");
    }
    assert_eq!(shown(&gateway, "good.test").await, good, "others are untouched");
    eventually("events", || api.all("events").len() >= 3).await;
    assert_eq!(reasons(&api, "garbage"), ["TLSSecretInvalid"]);
    assert_eq!(reasons(&api, "absent"), ["TLSSecretMissing"]);
    assert_eq!(reasons(&api, "opaque"), ["TLSSecretMissing"], "another type is not even listed");
    assert_eq!(reasons(&api, "good"), [""; 0]);
    for (name, words) in [
        ("garbage", "Secret garbage cannot be used (tls.crt holds no certificate)"),
        ("absent", "There is no Secret absent of type kubernetes.io/tls"),
    ] {
        let event = api.all("events").into_iter().find(|event| event["involvedObject"]["name"] == name).unwrap();
        let message = event["message"].as_str().unwrap();
        assert!(message.starts_with(words) && message.contains("default certificate"), "{message}");
    }

    let fixed = certificate(&api, "garbage", "garbage.test");
    let made = certificate(&api, "absent", "absent.test");
    until_shown(&gateway, "garbage.test", &fixed).await;
    until_shown(&gateway, "absent.test", &made).await;
    assert_eq!(api.all("events").len(), 3, "nothing is reported twice");
}

#[tokio::test]
async fn a_secret_that_is_referred_to_later_is_read() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let web = Backend::start("web", 0).await;
    served(&api, "web", [&web]);
    let gateway = Gateway::start(&api, &[]).await;
    let late = certificate(&api, "late", "late.test");
    ingress(
        &api,
        "late",
        json!({"tls": [{"hosts": ["late.test"], "secretName": "late"}], "rules": [rule("late.test", "Prefix", "/", "web")]}),
    );
    until_shown(&gateway, "late.test", &late).await;
    assert!(reasons(&api, "late").is_empty());
}

#[tokio::test]
async fn a_request_on_a_connection_of_another_configuration_is_misdirected() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let web = Backend::start("web", 0).await;
    served(&api, "web", [&web]);
    certificate(&api, "one", "one.test");
    certificate(&api, "two", "two.test");
    ingress(
        &api,
        "main",
        json!({
            "tls": [{"hosts": ["one.test", "also-one.test"], "secretName": "one"}, {"hosts": ["two.test"], "secretName": "two"}],
            "rules": [
                rule("one.test", "Prefix", "/", "web"), rule("also-one.test", "Prefix", "/", "web"),
                rule("two.test", "Prefix", "/", "web"), rule("plain.test", "Prefix", "/", "web"),
            ],
        }),
    );
    let gateway = Gateway::start(&api, &[]).await;
    let mut connection = Connection::open(gateway.https, Wire::Https2("one.test")).await.unwrap();
    for (host, status) in [
        ("one.test", 200),
        ("also-one.test", 200),
        ("two.test", 421),
        ("plain.test", 421),
        ("unknown.test", 404),
        ("one.test", 200),
    ] {
        assert_eq!(connection.get(host, "/").await.unwrap().status, status, "{host}");
    }
    certificate(&api, "one", "one.test");
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(connection.get("one.test", "/").await.unwrap().status, 200, "a renewed certificate misdirects nobody");
    // A client that named nobody may ask for anybody.
    assert_eq!(get(gateway.https, Wire::Https1(""), "two.test", "/").await.status, 200);
}
