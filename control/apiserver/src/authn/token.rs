//! Service-account tokens: JSON web tokens signed by this cluster's key, bound to objects that must still exist.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::path::Path;

use anyhow::{Context, bail};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, RsaKeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use control_api::meta;
use parking_lot::Mutex;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::prelude::FromDer;

use super::{AUTHENTICATED, User};
use crate::config::ServiceAccountKeys;
use crate::state::Server;

/// Verified tokens that are remembered; when full, all are forgotten.
const VERIFIED_MAX: usize = 4096;
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Tokens of objects in deletion go on for this long, so that their last deeds succeed.
const DELETION_LEEWAY_SECONDS: i64 = 60;

pub(crate) struct Tokens {
    issuer: String,
    key_id: String,
    signer: Signer,
    public: Public,
    /// Claims of tokens whose signature was found good, by the token's hash.
    verified: Mutex<HashMap<[u8; 32], Claims>>,
}

enum Signer {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

enum Public {
    /// The uncompressed point.
    Ecdsa(Vec<u8>),
    /// `RSAPublicKey` in DER, and modulus and exponent.
    Rsa { der: Vec<u8>, modulus: Vec<u8>, exponent: Vec<u8> },
}

/// What a token says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Claims {
    aud: Vec<String>,
    pub(crate) exp: i64,
    iat: i64,
    iss: String,
    jti: String,
    nbf: i64,
    sub: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Bindings,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Bindings {
    pub(crate) namespace: String,
    pub(crate) serviceaccount: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Reference>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) uid: String,
}

#[derive(Deserialize)]
struct Header<'a> {
    alg: &'a str,
}

impl Tokens {
    pub(crate) fn load(keys: &ServiceAccountKeys) -> anyhow::Result<Self> {
        let signer = Signer::load(&keys.private_key)?;
        let spki = SubjectPublicKeyInfoDer::from_pem_file(&keys.public_key)
            .with_context(|| format!("cannot read a public key from {}", keys.public_key.display()))?;
        let public = Public::parse(&spki).with_context(|| format!("cannot use {}", keys.public_key.display()))?;
        let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(&*spki));
        let tokens = Self { issuer: keys.issuer.clone(), key_id, signer, public, verified: Mutex::default() };
        let signature = tokens.sign(b"probe")?;
        if !tokens.public.verifies(tokens.signer.algorithm(), b"probe", &signature) {
            bail!("{} and {} do not belong together", keys.private_key.display(), keys.public_key.display());
        }
        Ok(tokens)
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Signs a new token. An empty audience means this API server.
    pub(crate) fn issue(
        &self,
        bindings: Bindings,
        audiences: &[String],
        seconds: i64,
        now: i64,
    ) -> anyhow::Result<String> {
        let aud = if audiences.is_empty() { vec![self.issuer.clone()] } else { audiences.to_vec() };
        let sub = format!("system:serviceaccount:{}:{}", bindings.namespace, bindings.serviceaccount.name);
        let jti = uuid::Uuid::new_v4().to_string();
        let claims = Claims {
            aud,
            exp: now + seconds,
            iat: now,
            iss: self.issuer.clone(),
            jti,
            nbf: now,
            sub,
            kubernetes: bindings,
        };
        let header = json!({"alg": self.signer.algorithm(), "kid": self.key_id});
        let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let mut token = format!("{}.{}", encode(header.to_string().as_bytes()), encode(&serde_json::to_vec(&claims)?));
        let signature = self.sign(token.as_bytes())?;
        token.push('.');
        token.push_str(&encode(&signature));
        Ok(token)
    }

    /// The user of a good token, and those of its audiences that were asked for (none asked: this API server).
    pub(crate) async fn authenticate(
        &self,
        server: &Server,
        token: &str,
        audiences: &[String],
    ) -> Result<(User, Vec<String>), String> {
        let claims = self.verify(token)?;
        let now = jiff::Timestamp::now().as_second();
        if claims.iss != self.issuer {
            return Err(format!("issuer {:?} is not ours", claims.iss));
        }
        if now < claims.nbf - 1 || now >= claims.exp {
            return Err("service account token has expired".into());
        }
        let wanted = if audiences.is_empty() { std::slice::from_ref(&self.issuer) } else { audiences };
        let common: Vec<String> = claims.aud.iter().filter(|audience| wanted.contains(audience)).cloned().collect();
        if common.is_empty() {
            return Err(format!("token audiences {:?} is invalid for the target audiences {wanted:?}", claims.aud));
        }
        check_bindings(server, &claims.kubernetes, now).await?;
        Ok((claims.user(), common))
    }

    fn verify(&self, token: &str) -> Result<Claims, String> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err("token is too long".into());
        }
        let hash: [u8; 32] = Sha256::digest(token).into();
        if let Some(claims) = self.verified.lock().get(&hash) {
            return Ok(claims.clone());
        }
        let malformed = || "token is malformed".to_owned();
        let (signed, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, body) = signed.split_once('.').ok_or_else(malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed());
        let header = decode(header)?;
        let header: Header<'_> = serde_json::from_slice(&header).map_err(|_| malformed())?;
        if !self.public.verifies(header.alg, signed.as_bytes(), &decode(signature)?) {
            return Err("token has a bad signature".into());
        }
        let claims: Claims = serde_json::from_slice(&decode(body)?).map_err(|_| malformed())?;
        let mut verified = self.verified.lock();
        if verified.len() >= VERIFIED_MAX {
            verified.clear();
        }
        if let MapEntry::Vacant(place) = verified.entry(hash) {
            place.insert(claims.clone());
        }
        Ok(claims)
    }

    fn sign(&self, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.signer {
            Signer::Ecdsa(pair) => Ok(pair.sign(&random, message).context("cannot sign")?.as_ref().to_vec()),
            Signer::Rsa(pair) => {
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut out).context("cannot sign")?;
                Ok(out)
            }
        }
    }

    /// The public key as a JSON web key set.
    pub(crate) fn jwks(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut key = json!({"use": "sig", "kid": self.key_id, "alg": self.signer.algorithm()});
        match &self.public {
            Public::Ecdsa(point) => {
                let (x, y) = point[1..].split_at((point.len() - 1) / 2);
                key["kty"] = "EC".into();
                key["crv"] = "P-256".into();
                key["x"] = encode(x).into();
                key["y"] = encode(y).into();
            }
            Public::Rsa { modulus, exponent, .. } => {
                key["kty"] = "RSA".into();
                key["n"] = encode(modulus).into();
                key["e"] = encode(exponent).into();
            }
        }
        json!({"keys": [key]})
    }

    pub(crate) fn openid_configuration(&self) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{}/openid/v1/jwks", self.issuer),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self.signer.algorithm()],
        })
    }
}

impl Signer {
    fn load(path: &Path) -> anyhow::Result<Self> {
        let key = PrivateKeyDer::from_pem_file(path)
            .with_context(|| format!("cannot read a private key from {}", path.display()))?;
        let der = key.secret_der();
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, der) {
            return Ok(Self::Ecdsa(pair));
        }
        let rsa = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der));
        rsa.map(Self::Rsa).map_err(|_| anyhow::anyhow!("{} is neither ECDSA P-256 nor RSA", path.display()))
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Ecdsa(_) => "ES256",
            Self::Rsa(_) => "RS256",
        }
    }
}

impl Public {
    fn parse(spki: &[u8]) -> anyhow::Result<Self> {
        let (_, spki) = x509_parser::x509::SubjectPublicKeyInfo::from_der(spki).context("not a public key")?;
        let data = spki.subject_public_key.data.to_vec();
        match spki.parsed().context("not a usable public key")? {
            x509_parser::public_key::PublicKey::EC(_) if data.len() == 65 => Ok(Self::Ecdsa(data)),
            x509_parser::public_key::PublicKey::RSA(key) => {
                let trim = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
                let (modulus, exponent) = (trim(key.modulus), trim(key.exponent));
                Ok(Self::Rsa { der: data, modulus, exponent })
            }
            _ => bail!("the public key is neither ECDSA P-256 nor RSA"),
        }
    }

    /// The algorithm must be the key's own: a token cannot choose.
    fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        match (self, algorithm) {
            (Self::Ecdsa(point), "ES256") => {
                let key = UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
                key.verify(message, signature).is_ok()
            }
            (Self::Rsa { der, .. }, "RS256") => {
                let key = UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, der);
                key.verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

impl Claims {
    fn user(&self) -> User {
        let Bindings { namespace, serviceaccount, pod, node, .. } = &self.kubernetes;
        let mut user = User {
            name: format!("system:serviceaccount:{namespace}:{}", serviceaccount.name),
            uid: serviceaccount.uid.clone(),
            groups: vec![
                "system:serviceaccounts".into(),
                format!("system:serviceaccounts:{namespace}"),
                AUTHENTICATED.into(),
            ],
            ..User::default()
        };
        let mut extra = |key: &str, value: String| {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
        };
        extra("credential-id", format!("JTI={}", self.jti));
        for (kind, reference) in [("pod", pod), ("node", node)] {
            if let Some(Reference { name, uid }) = reference {
                extra(&format!("{kind}-name"), name.clone());
                extra(&format!("{kind}-uid"), uid.clone());
            }
        }
        user
    }
}

/// Every object that a token is bound to must exist, with the same uid.
async fn check_bindings(server: &Server, bindings: &Bindings, now: i64) -> Result<(), String> {
    let namespace = bindings.namespace.as_str();
    let checks = [
        ("serviceaccounts", namespace, Some(&bindings.serviceaccount)),
        ("pods", namespace, bindings.pod.as_ref()),
        ("secrets", namespace, bindings.secret.as_ref()),
        ("nodes", "", bindings.node.as_ref()),
    ];
    for (plural, namespace, reference) in checks {
        let Some(Reference { name, uid }) = reference else { continue };
        let resource = server.builtin("", plural).map_err(|status| status.message)?;
        let found = server.read(&resource, namespace, name).await.map_err(|status| status.message)?;
        let Some((_, object)) = found.filter(|(_, object)| meta::uid(object) == uid) else {
            return Err(format!("{plural} {namespace}/{name} with uid {uid} is gone"));
        };
        let deleted = meta::deletion_timestamp(&object).and_then(|time| time.parse::<jiff::Timestamp>().ok());
        if deleted.is_some_and(|time| time.as_second() + DELETION_LEEWAY_SECONDS < now) {
            return Err(format!("{plural} {namespace}/{name} is being deleted"));
        }
    }
    Ok(())
}
