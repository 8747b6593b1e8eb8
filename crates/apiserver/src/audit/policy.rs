//! The audit policy (`audit.k8s.io/v1`): which requests are written down, and how much of them.

use kminik_meta::{ErrorList, FieldError, Path};
use serde::{Deserialize, Serialize};

use crate::auth::Attributes;

/// How much of a request is written down; each level includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

const LEVELS: [(&str, Level); 4] = [
    ("None", Level::None),
    ("Metadata", Level::Metadata),
    ("Request", Level::Request),
    ("RequestResponse", Level::RequestResponse),
];

impl Level {
    /// As policies write it.
    pub(crate) fn as_str(self) -> &'static str {
        LEVELS.iter().find(|(_, level)| *level == self).map_or("", |(name, _)| name)
    }
}

/// When an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

const STAGES: [(&str, Stage); 4] = [
    ("RequestReceived", Stage::RequestReceived),
    ("ResponseStarted", Stage::ResponseStarted),
    ("ResponseComplete", Stage::ResponseComplete),
    ("Panic", Stage::Panic),
];

/// Why a file is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("failed decoding: {0}")]
    Decode(String),
    #[error("unknown type {api_version}, Kind={kind}: an audit policy is audit.k8s.io/v1, Kind=Policy")]
    Type { api_version: String, kind: String },
    #[error("loaded illegal policy with 0 rules")]
    NoRules,
    #[error("{0}")]
    Invalid(String),
}

/// Rules in order; the first that matches decides.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Vec<(Rule, Verdict)>,
    otherwise: Verdict,
}

/// What becomes of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<String>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Rule {
    level: String,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    urls: Vec<String>,
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Resources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

impl Policy {
    /// Reads a policy in YAML or JSON. Unknown fields are passed over, as upstream does.
    ///
    /// # Errors
    /// What is wrong with it, in upstream's words.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let document: Document = serde_yaml::from_str(text).map_err(|error| PolicyError::Decode(error.to_string()))?;
        let Document { api_version, kind, rules, omit_stages, omit_managed_fields } = document;
        if api_version != "audit.k8s.io/v1" || kind != "Policy" {
            return Err(PolicyError::Type { api_version, kind });
        }
        if rules.is_empty() {
            return Err(PolicyError::NoRules);
        }
        let mut errors = ErrorList::new();
        let everywhere = stages(&omit_stages, &Path::new("omitStages"), &mut errors);
        let mut judged = Vec::with_capacity(rules.len());
        for (index, rule) in rules.into_iter().enumerate() {
            let path = Path::new("rules").index(index);
            let level = rule.validate(&path, &mut errors);
            let mut omit_stages = everywhere.clone();
            omit_stages.extend(stages(&rule.omit_stages, &path.child("omitStages"), &mut errors));
            let omit_managed_fields = rule.omit_managed_fields.unwrap_or(omit_managed_fields);
            judged.push((rule, Verdict { level, omit_stages, omit_managed_fields }));
        }
        if !errors.is_empty() {
            return Err(PolicyError::Invalid(errors.to_string()));
        }
        let otherwise = Verdict { level: Level::None, omit_stages: everywhere, omit_managed_fields };
        Ok(Policy { rules: judged, otherwise })
    }

    /// What becomes of this request.
    pub fn judge(&self, request: &Attributes) -> &Verdict {
        self.rules.iter().find(|(rule, _)| rule.matches(request)).map_or(&self.otherwise, |(_, verdict)| verdict)
    }
}

fn stages(names: &[String], path: &Path, errors: &mut ErrorList) -> Vec<Stage> {
    let mut stages = Vec::new();
    for (index, name) in names.iter().enumerate() {
        match STAGES.iter().find(|(known, _)| known == name) {
            Some((_, stage)) => stages.push(*stage),
            None => {
                let allowed: Vec<&str> = STAGES.iter().map(|(name, _)| *name).collect();
                let detail = format!("allowed stages are {}", allowed.join(","));
                errors.push(FieldError::invalid(&path.index(index), name.clone(), detail));
            }
        }
    }
    stages
}

impl Rule {
    fn validate(&self, path: &Path, errors: &mut ErrorList) -> Level {
        let level = LEVELS.iter().find(|(name, _)| *name == self.level).map(|(_, level)| *level);
        if self.level.is_empty() {
            errors.push(FieldError::required(&path.child("level"), ""));
        } else if level.is_none() {
            let names: Vec<&str> = LEVELS.iter().map(|(name, _)| *name).collect();
            errors.push(FieldError::not_supported(&path.child("level"), self.level.clone(), &names));
        }
        let urls = path.child("nonResourceURLs");
        for (index, url) in self.urls.iter().enumerate().filter(|(_, url)| *url != "*") {
            if !url.starts_with('/') {
                let detail = "non-resource URL rules must begin with a '/' character";
                errors.push(FieldError::invalid(&urls.index(index), url.clone(), detail));
            }
            if url.strip_suffix('*').unwrap_or(url).contains('*') {
                let detail = "non-resource URL wildcards '*' must be the final character of the rule";
                errors.push(FieldError::invalid(&urls.index(index), url.clone(), detail));
            }
        }
        for resources in &self.resources {
            let path = path.child("resources");
            let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
            if !resources.group.chars().all(label) {
                let detail =
                    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'";
                errors.push(FieldError::invalid(&path.child("group"), resources.group.clone(), detail));
            }
            if !resources.resource_names.is_empty() && resources.resources.is_empty() {
                let detail = "using resourceNames requires at least one resource";
                errors.push(FieldError::invalid(
                    &path.child("resourceNames"),
                    serde_json::Value::from(resources.resource_names.clone()),
                    detail,
                ));
            }
        }
        let of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if !self.urls.is_empty() && of_resources {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(FieldError::invalid(&urls, serde_json::Value::from(self.urls.clone()), detail));
        }
        level.unwrap_or_default()
    }

    fn matches(&self, request: &Attributes) -> bool {
        let any = |list: &[String], value: &str| list.is_empty() || list.iter().any(|known| known == value);
        if !any(&self.users, &request.user.name)
            || !any(&self.verbs, &request.verb)
            || !(self.user_groups.is_empty() || self.user_groups.iter().any(|group| request.user.in_group(group)))
        {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return request.resource_request
                && any(&self.namespaces, &request.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|resources| resources.match_one(request)));
        }
        if !self.urls.is_empty() {
            let path = |url: &String| {
                url == "*"
                    || *url == request.path
                    || url.ends_with('*') && request.path.starts_with(url.trim_end_matches('*'))
            };
            return !request.resource_request && self.urls.iter().any(path);
        }
        true
    }
}

impl Resources {
    fn match_one(&self, request: &Attributes) -> bool {
        let Attributes { group, resource, subresource, name, .. } = request;
        if self.group != *group {
            return false;
        }
        let named = self.resource_names.is_empty() || self.resource_names.iter().any(|known| known == name);
        let one = |known: &String| match known.split_once('/') {
            None => known == "*" || subresource.is_empty() && known == resource,
            Some(("*", sub)) => !subresource.is_empty() && sub == subresource,
            Some((of, "*")) => of == resource,
            Some((of, sub)) => of == resource && sub == subresource,
        };
        self.resources.is_empty() || named && self.resources.iter().any(one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::UserInfo;

    fn policy(rules: &str) -> Result<Policy, PolicyError> {
        Policy::parse(&format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}"))
    }

    fn request(verb: &str, namespace: &str, resource: &str, subresource: &str) -> Attributes {
        Attributes {
            user: UserInfo::new("jane", &["dev"]),
            verb: verb.into(),
            resource_request: true,
            namespace: namespace.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            name: "x".into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = policy(
            "omitStages: [RequestReceived]\nomitManagedFields: true\nrules:\n\
             - {level: None, users: [system:kube-proxy], verbs: [watch]}\n\
             - {level: None, nonResourceURLs: ['/healthz*', /version]}\n\
             - {level: Request, resources: [{group: '', resources: [configmaps], resourceNames: [x]}], namespaces: [kube-system], omitStages: [Panic]}\n\
             - {level: Metadata, resources: [{group: '', resources: [secrets, 'pods/log', '*/status', 'nodes/*']}], omitManagedFields: false}\n\
             - {level: RequestResponse, userGroups: [dev], verbs: [create]}\n",
        )
        .unwrap();
        let level = |request: &Attributes| policy.judge(request).level;
        assert_eq!(level(&request("get", "kube-system", "configmaps", "")), Level::Request);
        assert_eq!(level(&request("get", "other", "configmaps", "")), Level::None);
        for (resource, subresource) in
            [("secrets", ""), ("pods", "log"), ("pods", "status"), ("nodes", "proxy"), ("nodes", "")]
        {
            assert_eq!(level(&request("get", "a", resource, subresource)), Level::Metadata, "{resource}/{subresource}");
        }
        assert_eq!(level(&request("get", "a", "pods", "")), Level::None);
        assert_eq!(level(&request("create", "a", "pods", "")), Level::RequestResponse);
        let path = |path: &str| Attributes {
            path: path.into(),
            verb: "create".into(),
            user: UserInfo::new("j", &["dev"]),
            ..Attributes::default()
        };
        assert_eq!(level(&path("/healthz/x")), Level::None);
        assert_eq!(level(&path("/versions")), Level::RequestResponse);
        let verdict = policy.judge(&request("get", "kube-system", "configmaps", "")).clone();
        assert_eq!(verdict.omit_stages, [Stage::RequestReceived, Stage::Panic]);
        assert!(verdict.omit_managed_fields);
        assert!(!policy.judge(&request("get", "a", "secrets", "")).omit_managed_fields);
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        assert!(matches!(Policy::parse("{"), Err(PolicyError::Decode(_))));
        assert!(matches!(Policy::parse("apiVersion: v1\nkind: Policy\nrules: []"), Err(PolicyError::Type { .. })));
        assert!(matches!(policy("rules: []"), Err(PolicyError::NoRules)));
        for (rule, expected) in [
            ("{}", "rules[0].level: Required value"),
            ("{level: Some}", "rules[0].level: Unsupported value: \"Some\""),
            ("{level: None, nonResourceURLs: [x]}", "must begin with a '/' character"),
            ("{level: None, nonResourceURLs: ['/a*b']}", "must be the final character"),
            ("{level: None, nonResourceURLs: [/a], namespaces: [b]}", "rules cannot apply to both"),
            ("{level: None, resources: [{group: rbac/v1}]}", "rules[0].resources.group: Invalid value"),
            ("{level: None, resources: [{resourceNames: [a]}]}", "using resourceNames requires at least one resource"),
            ("{level: None, omitStages: [Never]}", "allowed stages are RequestReceived,ResponseStarted"),
        ] {
            let error = policy(&format!("rules: [{rule}]")).unwrap_err().to_string();
            assert!(error.contains(expected), "{rule}: {error}");
        }
    }
}
