//! Which form of an answer a client wants, from its `Accept` header.

use control_api::status::Status;
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING};

/// The types that every object can be had in.
pub(crate) const SUPPORTED: &[&str] = &["application/json", "application/yaml"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
}

/// What is made of the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are.
    Object,
    /// A `meta.k8s.io` Table of this version.
    Table(&'static str),
    /// Metadata only: `PartialObjectMetadata`, in lists `PartialObjectMetadataList`.
    Metadata,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) encoding: Encoding,
    pub(crate) form: Form,
}

/// What the endpoint can give beside whole objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    Objects,
    ObjectsTablesMetadata,
}

/// The first acceptable alternative, in the client's order.
///
/// # Errors
/// 406 if there is none.
pub(crate) fn accept(headers: &HeaderMap, offer: Offer) -> Result<Wanted, Status> {
    let mut seen = false;
    for value in headers.get_all(ACCEPT) {
        for alternative in value.to_str().unwrap_or_default().split(',') {
            seen = seen || !alternative.trim().is_empty();
            if let Some(wanted) = parse(alternative, offer) {
                return Ok(wanted);
            }
        }
    }
    if seen {
        return Err(Status::not_acceptable(SUPPORTED));
    }
    Ok(Wanted { encoding: Encoding::Json, form: Form::Object })
}

fn parse(alternative: &str, offer: Offer) -> Option<Wanted> {
    let mut parts = alternative.split(';').map(str::trim);
    let encoding = match parts.next()? {
        "application/json" | "*/*" | "application/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        _ => return None,
    };
    let (mut transform, mut version) = (None, "");
    for parameter in parts {
        match parameter.split_once('=')? {
            ("as", value) => transform = Some(value),
            ("v", value) => version = value,
            ("g", group) if group != "meta.k8s.io" => return None,
            ("q", "0" | "0.0") => return None,
            _ => {}
        }
    }
    let version = match version {
        "v1beta1" => "v1beta1",
        "v1" | "" => "v1",
        _ => return None,
    };
    let form = match transform {
        None => Form::Object,
        Some(_) if offer == Offer::Objects => return None,
        Some("Table") => Form::Table(version),
        Some("PartialObjectMetadata" | "PartialObjectMetadataList") if version == "v1" => Form::Metadata,
        Some(_) => return None,
    };
    Some(Wanted { encoding, form })
}

pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim() == "gzip" && parameters.trim() != "q=0"
    })
}

#[cfg(test)]
mod tests {
    use super::{Encoding, Form, Offer, Wanted, accept};
    use http::HeaderMap;
    use http::header::ACCEPT;

    fn wanted(header: &str, offer: Offer) -> Option<Wanted> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, header.parse().unwrap());
        accept(&headers, offer).ok()
    }

    #[test]
    fn the_first_alternative_that_can_be_given_wins() {
        let json = |form| Some(Wanted { encoding: Encoding::Json, form });
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let all = Offer::ObjectsTablesMetadata;
        assert_eq!(wanted(kubectl, all), json(Form::Table("v1")));
        assert_eq!(wanted(kubectl, Offer::Objects), json(Form::Object));
        assert_eq!(wanted("application/vnd.kubernetes.protobuf,application/json", all), json(Form::Object));
        assert_eq!(
            wanted("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", all),
            json(Form::Metadata)
        );
        assert_eq!(wanted("application/json;as=Table;v=v1;g=meta.k8s.io", Offer::Objects), None);
        assert_eq!(wanted("application/json;as=Table;v=v2;g=meta.k8s.io", all), None);
        assert_eq!(wanted("text/html", all), None);
        assert_eq!(wanted("*/*", all), json(Form::Object));
        let yaml = Some(Wanted { encoding: Encoding::Yaml, form: Form::Object });
        assert_eq!(wanted("application/yaml", all), yaml);
    }
}
