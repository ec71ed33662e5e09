//! The least that pingora can be made to do: TLS, HTTP/1.1 and HTTP/2 in, one origin out.
//!
//! `cargo xtask bench ingress` measures the gateway against it. Allocator, TLS provider, threads and build flags are the
//! gateway's, so that the difference is what the gateway adds: routing, headers, limits, health, metrics.

use std::net::SocketAddr;

use async_trait::async_trait;
use clap::Parser;
use pingora::listeners::tls::TlsSettings;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As many idle connections to the origin as the gateway keeps.
const UPSTREAM_KEEPALIVE: usize = 320;

#[derive(Debug, Parser)]
#[command(about)]
struct Args {
    /// Where to listen for HTTPS.
    #[arg(long, value_name = "ADDRESS:PORT")]
    https_bind: String,
    /// PEM file with the certificate chain.
    #[arg(long, value_name = "FILE")]
    certificate: String,
    /// PEM file with the private key.
    #[arg(long, value_name = "FILE")]
    key: String,
    /// Where every request goes, over plain HTTP/1.1.
    #[arg(long, value_name = "ADDRESS:PORT")]
    origin: SocketAddr,
}

struct Bare {
    origin: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut Self::CTX) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.origin, false, String::new())))
    }
}

fn main() -> pingora::Result<()> {
    let args = Args::parse();
    // Nobody else has installed a provider: this is the program's first line.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let conf = ServerConf {
        threads: 1,
        work_stealing: false,
        upstream_keepalive_pool_size: UPSTREAM_KEEPALIVE,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Bare { origin: args.origin });
    let mut tls = TlsSettings::intermediate(&args.certificate, &args.key)?;
    tls.enable_h2();
    service.add_tls_with_settings(&args.https_bind, None, tls);
    server.add_service(service);
    server.run_forever()
}
