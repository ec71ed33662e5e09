//! `explain URL`.

use serde_json::json;

use crate::api_server::{ApiServer, Streaming};
use crate::backend::Backend;
use crate::objects::{backend, certificate, class, ingress, rule, served, service};
use crate::process::Gateway;

fn assert_lines(explained: &str, lines: &[&str]) {
    for line in lines {
        assert!(
            explained.lines().any(|candidate| candidate.trim_start().starts_with(line)),
            "no {line:?} in:\n{explained}"
        );
    }
}

#[tokio::test]
async fn a_url_is_explained_from_listener_to_endpoint() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let web = Backend::start_many("web", 2).await;
    served(&api, "web", &web);
    service(&api, "empty");
    certificate(&api, "cert", "a.test");
    ingress(
        &api,
        "main",
        json!({
            "tls": [{"hosts": ["a.test"], "secretName": "cert"}, {"hosts": ["b.test"], "secretName": "missing"}],
            "rules": [
                rule("a.test", "Prefix", "/app", "web"),
                rule("a.test", "Prefix", "/", "empty"),
                rule("*.test", "Prefix", "/app", "empty"),
            ],
        }),
    );
    let gateway = Gateway::start(&api, &["--upstream-read-timeout", "7s"]).await;
    let url = format!("https://A.test:{}/app/x?q=1", gateway.https.port());
    assert_lines(
        &gateway.explain(&url.replace('?', "%3F")).await,
        &[
            &format!("listener: https on {}", gateway.https),
            "certificate: Secret shop/cert, by Ingress shop/main, host a.test",
            "route: host a.test, path /app/, of Ingress shop/main",
            "host a.test, path /, of Ingress shop/main (a less specific path)",
            "host *.test, path /app/, of Ingress shop/main (not this host exactly)",
            "service: shop/web:http",
            "policy: connect 5s, silence 7s, 3 tries",
            &format!("{}: available", web[0].address),
            &format!("{}: available", web[1].address),
        ],
    );
    assert_lines(
        &gateway.explain("https://b.test/app").await,
        &[
            &format!("listener: https on {}; port 443 has to be brought there", gateway.https),
            "certificate: the default one, as Secret shop/missing is missing or unusable",
            "answer: 503, no_endpoints",
        ],
    );
    assert_lines(
        &gateway.explain("http://b.test/other").await,
        &["route: none", "1 rules have this host, none of them this path:", "host *.test, path /app/", "answer: 404"],
    );
    assert_lines(&gateway.explain("http://unknown/").await, &["no rule has this host", "answer: 404"]);
    ingress(&api, "default", json!({"defaultBackend": backend("web")}));
    gateway.until_route("*", true).await;
    assert_lines(
        &gateway.explain("http://unknown/").await,
        &["route: host *, path (default), of Ingress shop/default"],
    );

    let ask = |url: &str| ingress::ExplainArgs { url: url.to_owned(), admin: Some(gateway.admin) };
    let (good, bad) = (ask("https://a.test/app?x=y&z"), ask("gopher://a.test/"));
    let outcome = tokio::task::spawn_blocking(|| (ingress::explain_command(good), ingress::explain_command(bad)));
    let (good, bad) = outcome.await.unwrap();
    good.unwrap();
    assert!(bad.unwrap_err().to_string().contains("neither http nor https"));
}
