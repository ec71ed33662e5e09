//! The cluster's own certificate authority: every identity of ARCHITECTURE.md, made once and kept in `<data-dir>/pki`.
//!
//! Keys are ECDSA P-256. Files are written with mode 0600 by write-then-rename, so a killed start leaves none half-made.
//! Leaf certificates are made anew when they are missing, near their end, or name other addresses than they should.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

const CA_DAYS: u64 = 3650;
const LEAF_DAYS: u64 = 365;
/// A leaf that ends sooner than this is replaced at the next start.
const RENEW_BEFORE_DAYS: u64 = 30;
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// The certificate authority, loaded or made.
pub(crate) struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate to issue.
pub(crate) struct Leaf<'a> {
    /// File stem: `<name>.crt` and `<name>.key`.
    pub(crate) name: &'a str,
    pub(crate) common_name: &'a str,
    pub(crate) organisation: Option<&'a str>,
    pub(crate) dns_names: Vec<String>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) server: bool,
    pub(crate) client: bool,
}

impl<'a> Leaf<'a> {
    /// A client certificate.
    pub(crate) fn client(name: &'a str, common_name: &'a str, organisation: Option<&'a str>) -> Self {
        Self { name, common_name, organisation, dns_names: vec![], addresses: vec![], server: false, client: true }
    }

    /// What the certificate must say; kept beside it to notice that it must be made anew.
    fn fingerprint(&self) -> String {
        format!(
            "cn={} o={} dns={:?} ip={:?} server={} client={}\n",
            self.common_name,
            self.organisation.unwrap_or_default(),
            self.dns_names,
            self.addresses,
            self.server,
            self.client
        )
    }
}

impl Authority {
    /// Loads the authority in `dir`, or makes one.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let (certificate, key) = (dir.join("ca.crt"), dir.join("ca.key"));
        if !key.exists() || !certificate.exists() {
            let key_pair = KeyPair::generate()?;
            let mut params = CertificateParams::new(vec![])?;
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params.distinguished_name.push(DnType::CommonName, "tidegate-ca");
            valid_for(&mut params, CA_DAYS);
            let ca = params.self_signed(&key_pair)?;
            write_private(&key, &key_pair.serialize_pem())?;
            write_private(&certificate, &ca.pem())?;
        }
        let pem = fs::read_to_string(&certificate).with_context(|| format!("cannot read {}", certificate.display()))?;
        let key_pem = fs::read_to_string(&key).with_context(|| format!("cannot read {}", key.display()))?;
        let key_pair = KeyPair::from_pem(&key_pem).with_context(|| format!("{} holds no key", key.display()))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key_pair)
            .with_context(|| format!("{} holds no CA certificate", certificate.display()))?;
        Ok(Self { dir: dir.to_owned(), issuer })
    }

    /// Makes sure that `<name>.crt` and `<name>.key` exist and say what `leaf` wants.
    pub(crate) fn ensure(&self, leaf: &Leaf<'_>) -> anyhow::Result<()> {
        let path = |extension: &str| self.dir.join(format!("{}.{extension}", leaf.name));
        let wanted = leaf.fingerprint();
        let fresh = path("key").exists()
            && fs::read_to_string(path("spec")).is_ok_and(|found| found == wanted)
            && !ends_soon(&path("crt"));
        if fresh {
            return Ok(());
        }
        let key_pair = KeyPair::generate()?;
        let mut params = CertificateParams::new(leaf.dns_names.clone())?;
        params.subject_alt_names.extend(leaf.addresses.iter().map(|address| SanType::IpAddress(*address)));
        if let Some(organisation) = leaf.organisation {
            params.distinguished_name.push(DnType::OrganizationName, organisation);
        }
        params.distinguished_name.push(DnType::CommonName, leaf.common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if leaf.server {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if leaf.client {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        params.use_authority_key_identifier_extension = true;
        valid_for(&mut params, LEAF_DAYS);
        let certificate =
            params.signed_by(&key_pair, &self.issuer).with_context(|| format!("cannot issue {}", leaf.name))?;
        // The specification goes last: it says that the two others are whole.
        let _ = fs::remove_file(path("spec"));
        write_private(&path("key"), &key_pair.serialize_pem())?;
        write_private(&path("crt"), &certificate.pem())?;
        write_private(&path("spec"), &wanted)
    }

    /// The key pair that signs service-account tokens: `sa.key` and `sa.pub`.
    pub(crate) fn ensure_token_key(&self) -> anyhow::Result<()> {
        let (private, public) = (self.dir.join("sa.key"), self.dir.join("sa.pub"));
        if private.exists() && public.exists() {
            return Ok(());
        }
        let key_pair = KeyPair::generate()?;
        write_private(&public, &key_pair.public_key_pem())?;
        write_private(&private, &key_pair.serialize_pem())
    }
}

fn valid_for(params: &mut CertificateParams, days: u64) {
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + Duration::from_secs(days * 86_400)).into();
}

/// Whether a certificate is unreadable or ends within the renewal time.
fn ends_soon(path: &Path) -> bool {
    let Ok(pem) = fs::read(path) else { return true };
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(&pem) else { return true };
    let Ok(certificate) = pem.parse_x509() else { return true };
    let limit = x509_parser::time::ASN1Time::now().timestamp() + (RENEW_BEFORE_DAYS * 86_400) as i64;
    certificate.validity().not_after.timestamp() < limit
}

/// Writes a file only root may read, whole or not at all.
pub(crate) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let temporary = path.with_extension("tmp");
    let write = || {
        let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{Authority, Leaf};

    #[test]
    fn a_leaf_is_kept_until_it_must_say_something_else() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let mut leaf = Leaf::client("admin", "tidegate-admin", Some("system:masters"));
        authority.ensure(&leaf).unwrap();
        let first = std::fs::read(dir.path().join("admin.crt")).unwrap();
        Authority::open(dir.path()).unwrap().ensure(&leaf).unwrap();
        assert_eq!(first, std::fs::read(dir.path().join("admin.crt")).unwrap());
        leaf.addresses.push("127.0.0.1".parse().unwrap());
        authority.ensure(&leaf).unwrap();
        assert_ne!(first, std::fs::read(dir.path().join("admin.crt")).unwrap());
    }
}
