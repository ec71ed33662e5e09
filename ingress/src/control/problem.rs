//! What is wrong with an Ingress, for the people who own it.

use ingress_route::Conflict;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Problem {
    /// A host or path that cannot be used; the text says which and why.
    InvalidRule(String),
    /// A backend that is no port of a Service.
    UnsupportedBackend(String),
    SecretMissing {
        secret: String,
    },
    SecretUnusable {
        secret: String,
        why: String,
    },
    Conflict {
        host: String,
        path: String,
        winner: String,
    },
    CertificateConflict {
        host: String,
        winner: String,
    },
}

impl Problem {
    /// A routing rule that another Ingress hides.
    pub(crate) fn from_conflict(conflict: &Conflict) -> Self {
        Self::Conflict {
            host: conflict.host.to_string(),
            path: conflict.path.to_string(),
            winner: conflict.winner.to_string(),
        }
    }

    /// A host whose certificate another Ingress chooses.
    pub(crate) fn from_certificate_conflict(conflict: &Conflict) -> Self {
        Self::CertificateConflict { host: conflict.host.to_string(), winner: conflict.winner.to_string() }
    }

    /// The reason of an Event: a word for machines.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::InvalidRule(_) => "InvalidRule",
            Self::UnsupportedBackend(_) => "UnsupportedBackend",
            Self::SecretMissing { .. } => "TLSSecretMissing",
            Self::SecretUnusable { .. } => "TLSSecretInvalid",
            Self::Conflict { .. } => "RuleConflict",
            Self::CertificateConflict { .. } => "TLSConflict",
        }
    }

    /// The message of an Event: a sentence for people.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::InvalidRule(why) => format!("Rule ignored: {why}."),
            Self::UnsupportedBackend(what) => format!("{what}: only ports of Services are served; answering 503."),
            Self::SecretMissing { secret } => {
                format!(
                    "There is no Secret {secret} of type kubernetes.io/tls in this namespace; its hosts are served \
                     with the default certificate."
                )
            }
            Self::SecretUnusable { secret, why } => {
                format!("Secret {secret} cannot be used ({why}); its hosts are served with the default certificate.")
            }
            Self::Conflict { host, path, winner } => {
                format!("Host {host} path {path} already belongs to Ingress {winner}; this rule is ignored.")
            }
            Self::CertificateConflict { host, winner } => {
                format!("Ingress {winner} chooses another Secret for host {host}, which is served with that one.")
            }
        }
    }
}
