//! Pod logs, from a kubelet that this test plays: mutual TLS, streamed, errors in the kubelet's words.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{TestServer, pod};

/// Answers `/containerLogs/…` with its own path, only to who shows a certificate.
async fn serve(listener: TcpListener, pki: &Path) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.join("ca.crt")).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_file(pki.join("kubelet-serving.crt")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(pki.join("kubelet-serving.key")).unwrap();
    let config = ServerConfig::builder()
        .with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    let tls = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = tls.accept(stream).await else { continue };
            let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                let uri = request.uri().to_string();
                let waiting = uri.contains("/waiting");
                let text = if waiting { "container \"waiting\" is waiting to start\n".into() } else { uri };
                let response = Response::builder().status(if waiting { 400 } else { 200 });
                Ok::<_, Infallible>(response.body(Full::new(bytes::Bytes::from(text))).unwrap())
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
}

#[tokio::test]
async fn a_log_comes_from_the_node_of_the_pod() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let server = TestServer::with_kubelet(listener.local_addr().unwrap().port()).await;
    serve(listener, &server.dir.path().join("pki")).await;
    server.namespace("team").await;
    let pods = "/api/v1/namespaces/team/pods";
    server.admin.post(pods, pod("p")).await.expect(201);
    server.admin.get(&format!("{pods}/p/log")).await.expect(400);
    let node = json!({"metadata": {"name": "node-1"}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}});
    server.admin.post("/api/v1/nodes", node).await.expect(201);
    let binding = json!({"metadata": {"name": "p"}, "target": {"name": "node-1"}});
    server.admin.post(&format!("{pods}/p/binding"), binding).await.expect(201);
    let log = server.admin.get(&format!("{pods}/p/log?tailLines=5&timestamps=true&bogus=1")).await.expect(200);
    assert_eq!(log, "/containerLogs/team/p/main?timestamps=true&tailLines=5");
    server.admin.get(&format!("{pods}/p/log?container=other")).await.expect(400);
    let mut waiting = pod("q");
    waiting["spec"]["nodeName"] = "node-1".into();
    waiting["spec"]["containers"][0]["name"] = "waiting".into();
    server.admin.post(pods, waiting).await.expect(201);
    let message = server.admin.get(&format!("{pods}/q/log")).await.message(400);
    assert_eq!(message, "container \"waiting\" is waiting to start");
    server.admin.get("/api/v1/namespaces/team/pods/none/log").await.expect(404);
}
