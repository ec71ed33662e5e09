//! Acting as somebody else: `Impersonate-*` headers, each value authorised by the verb `impersonate`.

use control_api::status::Status;
use http::HeaderMap;

use super::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User};
use crate::authz::Attributes;
use crate::state::Server;

const EXTRA_PREFIX: &str = "impersonate-extra-";

/// The user that the headers name, if they name one.
///
/// # Errors
/// 400 for groups or extras without a user, 403 if `real` may not act as all of them.
pub(crate) async fn impersonated(server: &Server, real: &User, headers: &HeaderMap) -> Result<Option<User>, Status> {
    let all = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let (names, groups, uids) = (all("impersonate-user"), all("impersonate-group"), all("impersonate-uid"));
    let mut user = User { groups, uid: uids.first().cloned().unwrap_or_default(), ..User::default() };
    for name in headers.keys().filter(|name| name.as_str().starts_with(EXTRA_PREFIX)) {
        let key = percent_encoding::percent_decode_str(&name.as_str()[EXTRA_PREFIX.len()..]).decode_utf8_lossy();
        user.extra.insert(key.into_owned(), all(name.as_str()));
    }
    let Some(name) = names.into_iter().next().filter(|name| !name.is_empty()) else {
        if user.groups.is_empty() && user.extra.is_empty() && user.uid.is_empty() {
            return Ok(None);
        }
        return Err(Status::bad_request("requested impersonation without impersonating a user"));
    };
    user.name = name;
    check(server, real, &user).await?;
    complete(&mut user);
    Ok(Some(user))
}

async fn check(server: &Server, real: &User, user: &User) -> Result<(), Status> {
    let account = user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let mut wanted = match account {
        Some((namespace, name)) => vec![("", "serviceaccounts", "", namespace, name)],
        None => vec![("", "users", "", "", user.name.as_str())],
    };
    wanted.extend(user.groups.iter().map(|group| ("", "groups", "", "", group.as_str())));
    let authentication = "authentication.k8s.io";
    if !user.uid.is_empty() {
        wanted.push((authentication, "uids", "", "", &user.uid));
    }
    for (key, values) in &user.extra {
        wanted.extend(values.iter().map(|value| (authentication, "userextras", key.as_str(), "", value.as_str())));
    }
    for (group, resource, subresource, namespace, name) in wanted {
        let attributes = Attributes {
            verb: "impersonate",
            group,
            resource,
            subresource,
            namespace,
            name,
            path: "",
            is_resource: true,
        };
        server.authorizer.require(real, &attributes).await?;
    }
    Ok(())
}

/// Groups that follow from the name, as if the user had authenticated.
fn complete(user: &mut User) {
    let account = user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    if let Some((namespace, _)) = account
        && user.groups.is_empty()
    {
        user.groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
    }
    let implied = if user.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !user.is_in(AUTHENTICATED) && !user.is_in(UNAUTHENTICATED) {
        user.groups.push(implied.into());
    }
}
