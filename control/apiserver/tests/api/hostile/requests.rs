//! Paths, queries, headers and tokens that nobody in his right mind sends.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use serde_json::json;

use super::ask;
use crate::support::{TestServer, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn absurd_numbers_are_no_times_and_no_versions() {
    let server = TestServer::start().await;
    let huge = u64::MAX;
    for (query, codes) in [
        (format!("watch=true&timeoutSeconds={huge}"), [200, 200]),
        (format!("watch=true&timeoutSeconds={huge}0"), [400, 400]),
        ("watch=true&timeoutSeconds=-1".to_owned(), [400, 400]),
        ("watch=true&timeoutSeconds=x".to_owned(), [400, 400]),
        (format!("watch=true&resourceVersion={huge}"), [504, 504]),
        ("watch=true&resourceVersion=-1".to_owned(), [400, 400]),
        ("watch=true&resourceVersion=abc".to_owned(), [400, 400]),
        (format!("resourceVersion={huge}"), [504, 504]),
        (format!("resourceVersion={huge}&resourceVersionMatch=Exact"), [504, 504]),
        ("resourceVersion=1e3".to_owned(), [400, 400]),
        (format!("limit={huge}"), [400, 400]),
        (format!("limit={}", i64::MAX), [200, 200]),
        ("limit=-1".to_owned(), [200, 200]),
        ("continue=AAAA".to_owned(), [400, 400]),
        (format!("continue={}", "A".repeat(30_000)), [400, 400]),
        ("dryRun=None".to_owned(), [200, 400]),
        ("labelSelector=a%3D%FF%FE".to_owned(), [400, 400]),
        ("fieldSelector=nothing.like.it%3D1".to_owned(), [400, 400]),
    ] {
        // A watch that has begun goes on: only how it begins is of interest.
        let begun = tokio::time::timeout(super::PATIENCE, server.admin.begin(&format!("{MAPS}?{query}"))).await;
        let code = begun.unwrap_or_else(|_| panic!("{query}: no answer"));
        assert!(codes.contains(&code), "{query}: {code}");
    }
    server.admin.post(MAPS, config_map("a", json!({}))).await.expect(201);
    let grace = format!("{MAPS}/a?gracePeriodSeconds={huge}");
    let code = server.admin.delete(&grace, json!({})).await.code.as_u16();
    assert!(matches!(code, 200 | 400 | 422), "{code}");
}

#[tokio::test]
async fn huge_selectors_are_read_in_time_and_what_does_not_fit_into_a_head_is_refused() {
    let server = TestServer::start().await;
    server.admin.post(MAPS, config_map("a", json!({"k": "v77"}))).await.expect(201);
    let values: Vec<String> = (0..8000).map(|at| format!("v{at}")).collect();
    let list = server.admin.get(&format!("{MAPS}?labelSelector=k+in+({})", values.join(","))).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let many = vec!["k"; 20_000].join(",");
    server.admin.get(&format!("{MAPS}?labelSelector={many}")).await.expect(200);
    for (what, codes) in [
        (
            format!(
                "GET {MAPS}?labelSelector={} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                "k,".repeat(100_000)
            ),
            [414, 431],
        ),
        (format!("GET {MAPS} HTTP/1.1\r\nHost: a\r\nX-Big: {}\r\n\r\n", "x".repeat(1 << 20)), [431, 431]),
        (format!("GET {MAPS} HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-Many: 1\r\n".repeat(5000)), [431, 431]),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), [400, 400]),
        ("\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), [400, 400]),
    ] {
        let mut stream = super::connect(&server, "http/1.1").await.unwrap();
        // It may hang up before it has read all of it.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, what.as_bytes()).await;
        let answer = super::to_the_end(&mut stream).await;
        let code = answer.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok());
        assert!(code.is_none_or(|code| codes.contains(&code)), "{code:?}: {:.60}", what);
    }
    server.admin.get(MAPS).await.expect(200);
}

#[tokio::test]
async fn a_path_leads_nowhere_but_where_its_segments_lead() {
    let server = TestServer::start().await;
    server.namespace("team").await;
    server.admin.post("/api/v1/namespaces/team/secrets", json!({"metadata": {"name": "s"}})).await.expect(201);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").into_bytes();
    for (path, code, text) in [
        (format!("{MAPS}/.."), 400, "Name parameter invalid: \"..\": may not be '..'"),
        (format!("{MAPS}/."), 400, "Name parameter invalid: \".\": may not be '.'"),
        (format!("{MAPS}/%2e%2e"), 400, "Name parameter invalid: \"..\": may not be '..'"),
        (format!("{MAPS}/a%2fb"), 400, "Name parameter invalid: \"a/b\": may not contain '/'"),
        (format!("{MAPS}/a%25b"), 400, "Name parameter invalid: \"a%b\": may not contain '%'"),
        ("/api/v1/namespaces/default%2f..%2fteam/secrets/s".to_owned(), 400, "Namespace parameter invalid"),
        ("/api/v1/namespaces/..%2f..%2fsecrets/configmaps".to_owned(), 400, "Namespace parameter invalid"),
        ("/api/v1/namespaces/default/configmaps/../../team/secrets/s".to_owned(), 400, "Name parameter invalid"),
        ("/healthz/../metrics".to_owned(), 404, ""),
        ("/healthz/..%2fmetrics".to_owned(), 404, ""),
    ] {
        let (found, body) = ask(&server, &get(&path)).await;
        assert_eq!(found, code, "{path}: {body}");
        let message = body["message"].as_str().unwrap_or_default();
        assert!(message.starts_with(text), "{path}: {message}");
    }
    // And nobody gets by such a way what he may not have.
    let nobody = server.bearer(None).await;
    for path in
        ["/healthz/../api/v1/secrets", "/healthz/%2e%2e/metrics", "//api/v1/secrets", "/version/../api/v1/nodes"]
    {
        let code = nobody.get(path).await.code.as_u16();
        assert!(matches!(code, 401 | 403 | 404), "{path}: {code}");
    }
    for name in ["..", "a/b", "a%b", "A_B", &"a".repeat(300), "\u{0}", "ü"] {
        server.admin.post(MAPS, json!({"metadata": {"name": name}})).await.expect(422);
    }
}

#[tokio::test]
async fn no_token_is_good_that_this_cluster_has_not_signed_for_now() {
    let server = TestServer::start().await;
    server.namespace("team").await;
    let path = "/api/v1/namespaces/team/serviceaccounts/default/token";
    let issued = server.admin.post(path, json!({"spec": {"expirationSeconds": 600}})).await.expect(201);
    let token = issued["status"]["token"].as_str().unwrap();
    let good = server.bearer(Some(token)).await;
    good.get("/api").await.expect(200);
    let [_, body, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("no token") };
    let header = |algorithm: &str| URL_SAFE_NO_PAD.encode(json!({"alg": algorithm, "typ": "JWT"}).to_string());
    let mut claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).unwrap()).unwrap();
    claims["sub"] = "system:serviceaccount:kube-system:default".into();
    let forged = URL_SAFE_NO_PAD.encode(claims.to_string());
    for token in [
        format!("{}.{body}.", header("none")),
        format!("{}.{body}.{signature}", header("none")),
        format!("{}.{body}.{signature}", header("HS256")),
        format!("{}.{body}.{signature}", header("RS256")),
        format!("{}.{forged}.{signature}", header("ES256")),
        format!("{}.{body}.{}", header("ES256"), URL_SAFE_NO_PAD.encode([0; 64])),
        "a.b.c".to_owned(),
        "....".to_owned(),
        "x".repeat(50_000),
        format!("{token}x"),
        format!("{}.{}.{signature}", header("ES256"), URL_SAFE_NO_PAD.encode("[".repeat(5000))),
    ] {
        let answer = server.bearer(Some(&token)).await.get("/api").await;
        let body = answer.expect(401);
        assert_eq!(
            (&body["reason"], &body["message"]),
            (&json!("Unauthorized"), &json!("Unauthorized")),
            "{token:.80}"
        );
    }
    for value in ["Bearer", "Basic YTpi", "Bearer  ", "bearer\u{9}x"] {
        let head = format!("GET /api HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: {value}\r\n\r\n");
        // A certificate comes first: this connection's owner is known already.
        assert_eq!(ask(&server, head.as_bytes()).await.0, 200);
        let request = Request::get("/api").header("authorization", value).body(Vec::new()).unwrap();
        server.bearer(None).await.send(request).await.expect(401);
    }
}
