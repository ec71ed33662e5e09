//! Identities in client certificates: the common name is the user, each organisation a group.

use x509_parser::prelude::{FromDer, X509Certificate};

use super::{AUTHENTICATED, User};

/// Reads a certificate that the TLS layer has verified.
pub(crate) fn user(certificate: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let organisations = subject.iter_organization().filter_map(|attribute| attribute.as_str().ok());
    let mut groups: Vec<String> = organisations.map(str::to_owned).collect();
    groups.push(AUTHENTICATED.into());
    (!name.is_empty()).then(|| User { name, groups, ..User::default() })
}

#[cfg(test)]
mod tests {
    use super::user;
    use rcgen::{CertificateParams, DnType, KeyPair};

    #[test]
    fn the_subject_names_user_and_groups() {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, "system:node:a");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let user = user(certificate.der()).unwrap();
        assert_eq!(user.name, "system:node:a");
        assert_eq!(user.groups, ["system:nodes", "system:authenticated"]);
        assert_eq!(user.node(), Some("a"));
    }
}
