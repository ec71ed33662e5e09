//! Service-account tokens for projected volumes: asked for once, kept, and renewed well before they expire.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccountTokenProjection};
use parking_lot::Mutex;

use crate::cluster::{Cluster, ClusterError};
use crate::spec::pod_ref::PodRef;

const LIFETIME_DEFAULT_S: i64 = 3_600;
const AGE_MAX: SignedDuration = SignedDuration::from_hours(24);

#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub token: String,
    pub renew_at: Timestamp,
}

/// Pod uid, audience, lifetime.
type Key = (String, String, i64);

pub(crate) struct Tokens {
    cluster: Arc<dyn Cluster>,
    known: Mutex<HashMap<Key, Token>>,
}

impl Tokens {
    pub(crate) fn new(cluster: Arc<dyn Cluster>) -> Self {
        Self { cluster, known: Mutex::default() }
    }

    /// A token bound to this pod with a good part of its life ahead.
    pub(crate) async fn get(
        &self,
        pod: &Pod,
        source: &ServiceAccountTokenProjection,
        now: Timestamp,
    ) -> Result<Token, ClusterError> {
        let lifetime = source.expiration_seconds.unwrap_or(LIFETIME_DEFAULT_S);
        let audience = source.audience.clone().unwrap_or_default();
        let key = (pod.uid().to_owned(), audience.clone(), lifetime);
        if let Some(token) = self.known.lock().get(&key).filter(|token| now < token.renew_at) {
            return Ok(token.clone());
        }
        let account = pod.pod_spec().service_account_name.as_deref().unwrap_or("default");
        let spec = TokenRequestSpec {
            audiences: (!audience.is_empty()).then(|| vec![audience]),
            expiration_seconds: Some(lifetime),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(pod.name().into()),
                uid: Some(pod.uid().into()),
            }),
        };
        let answer = self.cluster.token(pod.namespace(), account, spec).await?;
        let status = answer.status.ok_or_else(|| ClusterError::Failed("token request has no status".into()))?;
        let token =
            status.token.ok_or_else(|| ClusterError::Failed("token request was answered without a token".into()))?;
        let default_end = now.saturating_add(SignedDuration::from_secs(lifetime)).unwrap_or(now);
        let expires = status.expiration_timestamp.map_or(default_end, |time| time.0);
        let token = Token { token, renew_at: renewal(now, expires) };
        self.known.lock().insert(key, token.clone());
        Ok(token)
    }

    pub(crate) fn forget(&self, uid: &str) {
        self.known.lock().retain(|(owner, _, _), _| owner != uid);
    }
}

/// At four fifths of the life, and at least daily.
fn renewal(now: Timestamp, expires: Timestamp) -> Timestamp {
    let life = expires.duration_since(now);
    now.saturating_add((life * 4 / 5).min(AGE_MAX)).unwrap_or(expires)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_at_four_fifths_or_daily() {
        let now = Timestamp::from_second(0).unwrap();
        for (life, renew) in [(3_600, 2_880), (600, 480), (10 * 86_400, 86_400)] {
            assert_eq!(renewal(now, Timestamp::from_second(life).unwrap()).as_second(), renew);
        }
    }
}
