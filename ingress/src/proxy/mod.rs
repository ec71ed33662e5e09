//! One request: checked, routed, sent to an endpoint, answered, logged. The phases are pingora's.

mod access_log;
mod context;
mod framing;
mod headers;
mod origin;
mod phases;
mod refusal;
mod request;
mod retry;

use std::sync::Arc;

use pingora::apps::HttpServerOptions;
use pingora::protocols::http::v2::server::default_h2_options;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;

use self::phases::Gateway;
use crate::policy::TRIES_MAX;
use crate::shared::Shared;

/// Idle connections to endpoints that each thread keeps.
const UPSTREAM_KEEPALIVE: usize = 320;
/// Over HTTP/2 a header of a few times the limit is still read, so that its stream alone is refused: beyond, the library
/// ends the connection.
const H2_HEADER_SLACK: u32 = 4;

pub(crate) type Proxy = HttpProxy<Gateway>;

/// The proxy of one serving thread.
pub(crate) fn build(shared: Arc<Shared>) -> Proxy {
    let conf = ServerConf {
        threads: 1,
        work_stealing: false,
        upstream_keepalive_pool_size: UPSTREAM_KEEPALIVE,
        max_retries: usize::from(TRIES_MAX),
        ..ServerConf::default()
    };
    let mut h2 = default_h2_options();
    h2.max_header_list_size(shared.limits.header_size_max.saturating_mul(H2_HEADER_SLACK));
    let idle_timeout = shared.limits.keepalive_timeout;
    let mut proxy = HttpProxy::new(Gateway::new(shared), Arc::new(conf));
    proxy.h2_options = Some(h2);
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(idle_timeout);
    proxy.server_options = Some(options);
    proxy.handle_init_modules();
    proxy
}
