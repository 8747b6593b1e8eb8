//! FlowSchemas and PriorityLevelConfigurations as the decision reads them, and which request is of which flow.

use std::hash::{DefaultHasher, Hash, Hasher};

use kminik_meta::Object;
use serde::Deserialize;

use super::level::{Limits, MAX_HAND};
use crate::auth::UserInfo;
use crate::http::info::RequestInfo;

/// What a FlowSchema says.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SchemaSpec {
    pub(crate) priority_level_configuration: Reference,
    /// Lower ones are asked first.
    #[serde(default = "default_precedence")]
    pub(crate) matching_precedence: i32,
    #[serde(default)]
    distinguisher_method: Option<Method>,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Method {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    subjects: Vec<Subject>,
    #[serde(default)]
    resource_rules: Vec<ResourceRule>,
    #[serde(default)]
    non_resource_rules: Vec<PathRule>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind")]
enum Subject {
    User {
        user: Reference,
    },
    Group {
        group: Reference,
    },
    #[serde(rename_all = "camelCase")]
    ServiceAccount {
        service_account: Account,
    },
}

#[derive(Clone, Debug, Deserialize)]
struct Account {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceRule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    #[serde(default)]
    cluster_scope: bool,
    #[serde(default)]
    namespaces: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct PathRule {
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    urls: Vec<String>,
}

fn default_precedence() -> i32 {
    1000
}

impl SchemaSpec {
    /// `None` for an object whose spec cannot be read; validation lets none such in.
    pub(crate) fn of(object: &Object) -> Option<Self> {
        SchemaSpec::deserialize(object.get(&["spec"])?).ok()
    }

    pub(crate) fn matches(&self, info: &RequestInfo, user: &UserInfo) -> bool {
        self.rules.iter().any(|rule| {
            rule.subjects.iter().any(|subject| subject.matches(user))
                && if info.is_resource {
                    rule.resource_rules.iter().any(|rule| rule.matches(info))
                } else {
                    rule.non_resource_rules.iter().any(|rule| rule.matches(info))
                }
        })
    }

    /// What tells the flows of this schema apart: the user's name, the namespace, or nothing.
    pub(crate) fn distinguisher<'a>(&self, info: &'a RequestInfo, user: &'a UserInfo) -> &'a str {
        match self.distinguisher_method.as_ref().map(|method| method.kind.as_str()) {
            Some("ByUser") => &user.name,
            Some("ByNamespace") => &info.namespace,
            _ => "",
        }
    }
}

/// A number that is the same for all requests of a flow.
pub(crate) fn flow_hash(schema: &str, distinguisher: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (schema, distinguisher).hash(&mut hasher);
    hasher.finish()
}

impl Subject {
    fn matches(&self, user: &UserInfo) -> bool {
        match self {
            Subject::User { user: wanted } => wanted.name == "*" || wanted.name == user.name,
            Subject::Group { group } => group.name == "*" || user.in_group(&group.name),
            Subject::ServiceAccount { service_account: Account { namespace, name } } => {
                let account = user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
                account.is_some_and(|(of, named)| of == namespace && (name == "*" || name == named))
            }
        }
    }
}

/// Whether the list has the value, or is the wildcard.
fn has(list: &[String], value: &str) -> bool {
    matches!(list, [all] if all == "*") || list.iter().any(|known| known == value)
}

impl ResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let resource = match info.subresource.as_str() {
            "" => has(&self.resources, &info.resource),
            subresource => {
                matches!(self.resources.as_slice(), [all] if all == "*")
                    || self.resources.iter().any(|known| {
                        known.split_once('/').is_some_and(|(of, sub)| of == info.resource && sub == subresource)
                    })
            }
        };
        let scope = match info.namespace.as_str() {
            "" => self.cluster_scope,
            namespace => has(&self.namespaces, namespace),
        };
        resource && scope && has(&self.verbs, &info.verb) && has(&self.api_groups, &info.group)
    }
}

impl PathRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let path = |url: &String| {
            let prefix = url.strip_suffix('*').unwrap_or(url);
            let below = info.path.strip_prefix(prefix.strip_suffix('/').unwrap_or(prefix));
            url == "*" || *url == info.path || below.is_some_and(|below| below.starts_with('/'))
        };
        has(&self.verbs, &info.verb) && self.urls.iter().any(path)
    }
}

/// What a PriorityLevelConfiguration says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LevelSpec {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    limited: Option<Limited>,
    #[serde(default)]
    exempt: Option<Exempt>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Limited {
    #[serde(default)]
    nominal_concurrency_shares: Option<u32>,
    #[serde(default)]
    lendable_percent: Option<u32>,
    #[serde(default)]
    borrowing_limit_percent: Option<u32>,
    #[serde(default)]
    limit_response: Option<Response>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Response {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    queuing: Option<Queuing>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Queuing {
    #[serde(default)]
    queues: Option<usize>,
    #[serde(default)]
    hand_size: Option<usize>,
    #[serde(default)]
    queue_length_limit: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Exempt {
    #[serde(default)]
    nominal_concurrency_shares: Option<u32>,
    #[serde(default)]
    lendable_percent: Option<u32>,
}

/// Upstream's default of `nominalConcurrencyShares`.
const DEFAULT_SHARES: u32 = 30;
/// Bounds on what a spec may ask for, whoever wrote it: upstream validates the first.
const MAX_QUEUES: usize = 10_000_000 / MAX_HAND;

impl LevelSpec {
    /// `None` for an object whose spec cannot be read; validation lets none such in.
    pub(crate) fn of(object: &Object) -> Option<Self> {
        LevelSpec::deserialize(object.get(&["spec"])?).ok()
    }

    pub(crate) fn is_exempt(&self) -> bool {
        self.kind == "Exempt"
    }

    pub(crate) fn shares(&self) -> u32 {
        match (&self.limited, &self.exempt) {
            (Some(limited), _) if !self.is_exempt() => limited.nominal_concurrency_shares.unwrap_or(DEFAULT_SHARES),
            (_, Some(exempt)) if self.is_exempt() => exempt.nominal_concurrency_shares.unwrap_or_default(),
            _ if self.is_exempt() => 0,
            _ => DEFAULT_SHARES,
        }
    }

    /// Percent of the nominal seats that others may have while they are not wanted here.
    pub(crate) fn lendable_percent(&self) -> u32 {
        let limited = self.limited.as_ref().and_then(|limited| limited.lendable_percent);
        let exempt = self.exempt.as_ref().and_then(|exempt| exempt.lendable_percent);
        if self.is_exempt() { exempt } else { limited }.unwrap_or_default().min(100)
    }

    /// Percent of the nominal seats that may be had from others; `None` is no limit.
    pub(crate) fn borrowing_percent(&self) -> Option<u32> {
        self.limited.as_ref().and_then(|limited| limited.borrowing_limit_percent)
    }

    /// With so many seats.
    pub(crate) fn limits(&self, seats: u32) -> Limits {
        if self.is_exempt() {
            return Limits { seats: None, queues: 0, hand: 0, queue_length: 0 };
        }
        let response = self.limited.as_ref().and_then(|limited| limited.limit_response.as_ref());
        let queuing = response.filter(|response| response.kind == "Queue").map(|response| response.queuing.as_ref());
        match queuing {
            None => Limits { seats: Some(seats), queues: 0, hand: 0, queue_length: 0 },
            Some(queuing) => {
                let queues = queuing.and_then(|q| q.queues).unwrap_or(64).clamp(1, MAX_QUEUES);
                let hand = queuing.and_then(|q| q.hand_size).unwrap_or(8).clamp(1, queues.min(MAX_HAND));
                let queue_length = queuing.and_then(|q| q.queue_length_limit).unwrap_or(50);
                Limits { seats: Some(seats), queues, hand, queue_length }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn schema(rules: Value) -> SchemaSpec {
        let spec = json!({"priorityLevelConfiguration": {"name": "p"}, "rules": [rules],
            "distinguisherMethod": {"type": "ByNamespace"}});
        SchemaSpec::of(&Object::try_from(json!({"spec": spec})).unwrap()).unwrap()
    }

    fn info(verb: &str, group: &str, resource: &str, subresource: &str, namespace: &str) -> RequestInfo {
        RequestInfo {
            is_resource: true,
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            ..RequestInfo::default()
        }
    }

    #[test]
    fn rules_match_as_upstream_reads_them() {
        let group = json!([{"kind": "Group", "group": {"name": "g"}}]);
        let user = UserInfo::new("u", &["g"]);
        let all = schema(json!({"subjects": group, "resourceRules": [
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}]}));
        assert!(all.matches(&info("get", "apps", "deployments", "scale", "n"), &user));
        assert!(!all.matches(&info("get", "", "nodes", "", ""), &user), "no cluster scope");
        assert!(!all.matches(&info("get", "", "pods", "", "n"), &UserInfo::new("u", &[])));
        assert_eq!(all.distinguisher(&info("get", "", "pods", "", "n"), &user), "n");
        let some = schema(json!({"subjects": group, "resourceRules": [{"verbs": ["create"], "apiGroups": [""],
            "resources": ["pods", "pods/status"], "namespaces": ["n"], "clusterScope": true}]}));
        for (expected, request) in [
            (true, info("create", "", "pods", "", "n")),
            (true, info("create", "", "pods", "status", "n")),
            (true, info("create", "", "pods", "", "")),
            (false, info("create", "", "pods", "log", "n")),
            (false, info("create", "", "pods", "", "m")),
            (false, info("get", "", "pods", "", "n")),
            (false, info("create", "apps", "pods", "", "n")),
        ] {
            assert_eq!(some.matches(&request, &user), expected, "{request:?}");
        }
        let paths = schema(json!({"subjects": [{"kind": "User", "user": {"name": "*"}}],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/debug/*"]}]}));
        let path = |path: &str| RequestInfo { verb: "get".into(), path: path.into(), ..RequestInfo::default() };
        for (expected, url) in [(true, "/healthz"), (true, "/healthz/x"), (true, "/debug/x"), (false, "/healthzz")] {
            assert_eq!(paths.matches(&path(url), &user), expected, "{url}");
        }
    }

    #[test]
    fn service_accounts_are_named_by_namespace() {
        let of = |name: &str| {
            schema(json!({"subjects": [{"kind": "ServiceAccount",
                "serviceAccount": {"namespace": "kube-system", "name": name}}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}))
        };
        let account = |name: &str| UserInfo::new(name, &[]);
        let any = RequestInfo { verb: "get".into(), path: "/x".into(), ..RequestInfo::default() };
        assert!(of("*").matches(&any, &account("system:serviceaccount:kube-system:a")));
        assert!(of("a").matches(&any, &account("system:serviceaccount:kube-system:a")));
        assert!(!of("b").matches(&any, &account("system:serviceaccount:kube-system:a")));
        assert!(!of("*").matches(&any, &account("system:serviceaccount:kube-system2:a")));
    }

    #[test]
    fn levels_have_upstreams_defaults() {
        let level = |spec: Value| LevelSpec::of(&Object::try_from(json!({"spec": spec})).unwrap()).unwrap();
        let queue = level(json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue"}}}));
        assert_eq!(queue.limits(5), Limits { seats: Some(5), queues: 64, hand: 8, queue_length: 50 });
        assert_eq!((queue.shares(), queue.lendable_percent(), queue.borrowing_percent()), (30, 0, None));
        let reject = level(json!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}));
        assert_eq!(reject.limits(5).queues, 0);
        let exempt = level(json!({"type": "Exempt"}));
        assert_eq!((exempt.limits(5).seats, exempt.shares()), (None, 0));
    }
}
