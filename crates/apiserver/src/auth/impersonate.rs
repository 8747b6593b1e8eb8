//! Impersonation: a user who may acts as another one, named in headers.

use std::collections::BTreeMap;

use http::HeaderMap;
use kminik_meta::StatusError;

use super::service_account::{groups as service_account_groups, split_user_name};
use super::{ANONYMOUS, AUTHENTICATED, Attributes, Authorizer, UNAUTHENTICATED, UserInfo, forbidden};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA_PREFIX: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// The user that the request is to be treated as; `None` if it impersonates nobody.
///
/// # Errors
/// 403 if the requester may not impersonate one of what it names, 400 if it names no user.
pub async fn impersonate(
    headers: &HeaderMap,
    requester: &UserInfo,
    authorizer: &dyn Authorizer,
) -> Result<Option<UserInfo>, StatusError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut user = UserInfo { name: text(USER), uid: text(UID), ..UserInfo::default() };
    user.groups = headers.get_all(GROUP).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect();
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA_PREFIX), value.to_str()) {
            user.extra.entry(unescape(key)).or_default().push(value.to_owned());
        }
    }
    if user == UserInfo::default() {
        return Ok(None);
    }
    if user.name.is_empty() {
        let wanted = describe(&user);
        return Err(StatusError::bad_request(format!("requested [{wanted}] without impersonating a user")));
    }
    check(&user, requester, authorizer).await?;
    complete(&mut user);
    Ok(Some(user))
}

/// What is impersonated besides a user: references to objects, as upstream's messages print them.
fn describe(user: &UserInfo) -> String {
    const VERSION: &str = "authentication.k8s.io/v1";
    let reference =
        |kind: &str, name: &str, version: &str, field: &str| format!("{{{kind}  {name}  {version}  {field}}}");
    let groups = user.groups.iter().map(|group| reference("Group", group, "", ""));
    let extra = user
        .extra
        .iter()
        .flat_map(|(key, values)| values.iter().map(move |value| reference("UserExtra", value, VERSION, key)));
    let uid = Some(&user.uid).filter(|uid| !uid.is_empty()).map(|uid| reference("UID", uid, VERSION, ""));
    groups.chain(extra).chain(uid).collect::<Vec<_>>().join(" ")
}

async fn check(user: &UserInfo, requester: &UserInfo, authorizer: &dyn Authorizer) -> Result<(), StatusError> {
    let attributes = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| Attributes {
        user: requester.clone(),
        verb: "impersonate".to_owned(),
        resource_request: true,
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    };
    let mut wanted = vec![match split_user_name(&user.name) {
        Some((namespace, name)) => attributes("", "serviceaccounts", "", namespace, name),
        None => attributes("", "users", "", "", &user.name),
    }];
    wanted.extend(user.groups.iter().map(|group| attributes("", "groups", "", "", group)));
    for (key, values) in &user.extra {
        wanted.extend(values.iter().map(|value| attributes(AUTHENTICATION, "userextras", key, "", value)));
    }
    if !user.uid.is_empty() {
        wanted.push(attributes(AUTHENTICATION, "uids", "", "", &user.uid));
    }
    for attributes in wanted {
        let decision = authorizer.authorize(&attributes).await;
        if !decision.allowed() {
            return Err(forbidden(&attributes, decision.reason()));
        }
    }
    Ok(())
}

/// Adds the groups that a real login of this user would have brought.
fn complete(user: &mut UserInfo) {
    if user.groups.is_empty()
        && let Some((namespace, _)) = split_user_name(&user.name)
    {
        user.groups.extend(service_account_groups(namespace));
    }
    let (own, said) = match user.name == ANONYMOUS {
        true => (UNAUTHENTICATED, user.in_group(UNAUTHENTICATED)),
        false => (AUTHENTICATED, user.in_group(AUTHENTICATED) || user.in_group(UNAUTHENTICATED)),
    };
    if !said {
        user.groups.push(own.to_owned());
    }
}

/// Keys of extras are percent-encoded, for header names allow few characters.
pub(super) fn unescape(key: &str) -> String {
    let pairs: BTreeMap<String, String> =
        url::form_urlencoded::parse(format!("k={}", key.replace('+', "%2B")).as_bytes()).into_owned().collect();
    pairs.into_values().next().unwrap_or_else(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::auth::Decision;

    /// Allows impersonating what its list names as `resource/name`.
    struct Only(&'static [&'static str]);

    #[async_trait]
    impl Authorizer for Only {
        async fn authorize(&self, attributes: &Attributes) -> Decision {
            let wanted = format!("{}/{}", attributes.resource, attributes.name);
            assert_eq!(attributes.verb, "impersonate");
            match self.0.contains(&wanted.as_str()) {
                true => Decision::Allow { reason: String::new() },
                false => Decision::NoOpinion { reason: String::new() },
            }
        }
    }

    async fn act(
        headers: &[(&'static str, &'static str)],
        allowed: &'static [&'static str],
    ) -> Result<Option<UserInfo>, u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        impersonate(&map, &UserInfo::new("admin", &[]), &Only(allowed)).await.map_err(|error| error.code())
    }

    #[tokio::test]
    async fn everything_named_must_be_allowed() {
        assert_eq!(act(&[], &[]).await, Ok(None));
        assert_eq!(act(&[(GROUP, "g")], &["groups/g"]).await, Err(400));
        assert_eq!(act(&[(USER, "bob")], &[]).await, Err(403));
        let both = &[(USER, "bob"), (GROUP, "g"), (GROUP, "h")];
        assert_eq!(act(both, &["users/bob", "groups/g"]).await, Err(403));
        let bob = act(both, &["users/bob", "groups/g", "groups/h"]).await.unwrap().unwrap();
        assert_eq!((bob.name.as_str(), bob.groups), ("bob", vec!["g".into(), "h".into(), AUTHENTICATED.into()]));
        let extra = act(&[(USER, "bob"), ("impersonate-extra-a%2fb", "1")], &["users/bob", "userextras/1"]).await;
        assert_eq!(extra.unwrap().unwrap().extra["a/b"], ["1"]);
    }

    #[tokio::test]
    async fn service_accounts_bring_their_groups() {
        let account = act(&[(USER, "system:serviceaccount:ns:sa")], &["serviceaccounts/sa"]).await.unwrap().unwrap();
        assert_eq!(account.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", AUTHENTICATED]);
    }
}
