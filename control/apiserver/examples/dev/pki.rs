//! A throw-away certificate authority with every identity of a cluster, made anew only where files are missing.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

/// Client identities: file, user, group.
const CLIENTS: [(&str, &str, &str); 6] = [
    ("admin", "tidegate-admin", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("agent", "system:tidegate:agent", ""),
    ("ingress", "system:tidegate:ingress", ""),
    ("apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
];

pub(crate) fn ensure(dir: &Path, port: u16, node: &str, addresses: &[IpAddr]) -> anyhow::Result<()> {
    let pki = dir.join("pki");
    fs::create_dir_all(&pki)?;
    fs::create_dir_all(dir.join("kubeconfig"))?;
    if !pki.join("ca.key").exists() {
        let key = KeyPair::generate()?;
        let mut params = named("tidegate-ca", "")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        fs::write(pki.join("ca.crt"), params.self_signed(&key)?.pem())?;
        fs::write(pki.join("ca.key"), key.serialize_pem())?;
        let key = KeyPair::generate()?;
        fs::write(pki.join("sa.pub"), key.public_key_pem())?;
        fs::write(pki.join("sa.key"), key.serialize_pem())?;
    }
    let ca = fs::read_to_string(pki.join("ca.crt"))?;
    let key = KeyPair::from_pem(&fs::read_to_string(pki.join("ca.key"))?)?;
    let issuer = Issuer::from_ca_cert_pem(&ca, key)?;
    let mut addresses = addresses.to_vec();
    addresses.extend(
        ["127.0.0.1", "::1", "10.96.0.1", "fd00:10:96::1"].map(|text| text.parse::<IpAddr>()).into_iter().flatten(),
    );
    let mut server = named("kube-apiserver", "")?;
    add_names(&mut server, &["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"], &addresses)?;
    issue(&pki, "apiserver", server, &issuer)?;
    let mut kubelet = named(&format!("system:node:{node}"), "system:nodes")?;
    add_names(&mut kubelet, &[node], &addresses)?;
    issue(&pki, "kubelet-serving", kubelet, &issuer)?;
    let node_file = format!("node-{node}");
    let node_user = format!("system:node:{node}");
    let node_client = (node_file.as_str(), node_user.as_str(), "system:nodes");
    for (file, user, group) in CLIENTS.iter().copied().chain([node_client]) {
        let mut params = named(user, group)?;
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        issue(&pki, file, params, &issuer)?;
        fs::write(dir.join("kubeconfig").join(format!("{file}.yaml")), kubeconfig(&pki, file, port)?)?;
    }
    Ok(())
}

fn named(user: &str, group: &str) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(vec![])?;
    if !group.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.distinguished_name.push(DnType::CommonName, user);
    Ok(params)
}

fn add_names(params: &mut CertificateParams, names: &[&str], addresses: &[IpAddr]) -> anyhow::Result<()> {
    for name in names {
        params.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
    }
    params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    Ok(())
}

fn issue(pki: &Path, name: &str, params: CertificateParams, issuer: &Issuer<'_, KeyPair>) -> anyhow::Result<()> {
    if pki.join(format!("{name}.key")).exists() {
        return Ok(());
    }
    let key = KeyPair::generate()?;
    fs::write(pki.join(format!("{name}.crt")), params.signed_by(&key, issuer)?.pem())?;
    fs::write(pki.join(format!("{name}.key")), key.serialize_pem())?;
    Ok(())
}

fn kubeconfig(pki: &Path, name: &str, port: u16) -> anyhow::Result<String> {
    let read = |file: String| fs::read(pki.join(file)).map(|bytes| STANDARD.encode(bytes));
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "dev",
        "clusters": [{"name": "dev", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority-data": read("ca.crt".into())?}}],
        "users": [{"name": name, "user": {
            "client-certificate-data": read(format!("{name}.crt"))?, "client-key-data": read(format!("{name}.key"))?}}],
        "contexts": [{"name": "dev", "context": {"cluster": "dev", "user": name}}],
    });
    Ok(serde_json::to_string_pretty(&config)?)
}
