//! What an RBAC rule allows, and whether some rules cover another: pure functions of values.

use kminik_meta::Object;
use serde_json::{Value, json};

use crate::auth::{Attributes, RuleSummary};

const ALL: &str = "*";

/// A PolicyRule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub api_groups: Vec<String>,
    pub resources: Vec<String>,
    pub resource_names: Vec<String>,
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    pub fn from_value(value: &Value) -> Self {
        let words = |key: &str| {
            let list = value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Rule {
            verbs: words("verbs"),
            api_groups: words("apiGroups"),
            resources: words("resources"),
            resource_names: words("resourceNames"),
            non_resource_urls: words("nonResourceURLs"),
        }
    }

    /// The rule as it stands in a role; empty lists are left out.
    pub fn to_value(&self) -> Value {
        let mut value = json!({ "verbs": self.verbs });
        for (key, words) in [
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("resourceNames", &self.resource_names),
            ("nonResourceURLs", &self.non_resource_urls),
        ] {
            if !words.is_empty() {
                value[key] = json!(words);
            }
        }
        value
    }

    /// The rules of a role object.
    pub fn of_role(role: &Object) -> Vec<Self> {
        role.array(&["rules"]).iter().map(Rule::from_value).collect()
    }

    /// Whether the rule allows the request.
    pub fn allows(&self, request: &Attributes) -> bool {
        if !any(&self.verbs, &request.verb) {
            return false;
        }
        if request.resource_request {
            any(&self.api_groups, &request.group)
                && self.covers_resource(&request.resource, &request.subresource)
                && (self.resource_names.is_empty() || self.resource_names.contains(&request.name))
        } else {
            self.non_resource_urls.iter().any(|pattern| url_matches(pattern, &request.path))
        }
    }

    fn covers_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|pattern| match pattern.split_once('/') {
            None => pattern == ALL || (pattern == resource && subresource.is_empty()),
            Some((ALL, sub)) => sub == subresource && !subresource.is_empty(),
            Some((main, sub)) => main == resource && sub == subresource,
        })
    }

    /// The rule split into rules that name one verb, group, resource (and name) or URL each.
    fn atoms(&self) -> Vec<Rule> {
        let mut atoms = Vec::new();
        let one = |word: &String| vec![word.clone()];
        for verb in &self.verbs {
            for url in &self.non_resource_urls {
                atoms.push(Rule { verbs: one(verb), non_resource_urls: one(url), ..Rule::default() });
            }
            for group in &self.api_groups {
                for resource in &self.resources {
                    let atom =
                        Rule { verbs: one(verb), api_groups: one(group), resources: one(resource), ..Rule::default() };
                    if self.resource_names.is_empty() {
                        atoms.push(atom);
                    } else {
                        atoms.extend(
                            self.resource_names.iter().map(|name| Rule { resource_names: one(name), ..atom.clone() }),
                        );
                    }
                }
            }
        }
        atoms
    }

    /// Whether the rule alone covers an atom.
    fn covers_atom(&self, atom: &Rule) -> bool {
        if !atom.verbs.iter().all(|verb| any(&self.verbs, verb)) {
            return false;
        }
        if let Some(url) = atom.non_resource_urls.first() {
            return self.non_resource_urls.iter().any(|own| url_matches(own, url));
        }
        let covers_resource = |wanted: &String| {
            let all_of_subresource =
                |own: &String| wanted.split_once('/').is_some_and(|(_, sub)| own.strip_prefix("*/") == Some(sub));
            any(&self.resources, wanted) || self.resources.iter().any(all_of_subresource)
        };
        let covers_names = self.resource_names.is_empty()
            || (!atom.resource_names.is_empty()
                && atom.resource_names.iter().all(|name| self.resource_names.contains(name)));
        atom.api_groups.iter().all(|group| any(&self.api_groups, group))
            && atom.resources.iter().all(covers_resource)
            && covers_names
    }

    /// The rule as SelfSubjectRulesReview reports it.
    pub fn summary(&self) -> RuleSummary {
        RuleSummary {
            verbs: self.verbs.clone(),
            api_groups: self.api_groups.clone(),
            resources: self.resources.clone(),
            resource_names: self.resource_names.clone(),
            non_resource_urls: self.non_resource_urls.clone(),
        }
    }

    /// The rule in upstream's words, as messages about escalation list it.
    pub fn describe(&self) -> String {
        let mut parts = Vec::new();
        for (name, words) in [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.resource_names),
            ("NonResourceURLs", &self.non_resource_urls),
        ] {
            if !words.is_empty() {
                parts.push(format!("{name}:{}", quoted(words)));
            }
        }
        parts.push(format!("Verbs:{}", quoted(&self.verbs)));
        format!("{{{}}}", parts.join(", "))
    }
}

/// The atoms of `wanted` that `owned` does not cover, put together again by what they are about.
pub fn uncovered(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let mut missing: Vec<Rule> = Vec::new();
    for atom in wanted.iter().flat_map(Rule::atoms) {
        if owned.iter().any(|rule| rule.covers_atom(&atom)) {
            continue;
        }
        let same = |rule: &&mut Rule| {
            rule.api_groups == atom.api_groups
                && rule.resources == atom.resources
                && rule.resource_names == atom.resource_names
                && rule.non_resource_urls == atom.non_resource_urls
        };
        match missing.iter_mut().find(same) {
            Some(rule) if rule.verbs.contains(&atom.verbs[0]) => {}
            Some(rule) => rule.verbs.extend(atom.verbs),
            None => missing.push(atom),
        }
    }
    missing
}

fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
}

fn any(patterns: &[String], word: &str) -> bool {
    patterns.iter().any(|pattern| pattern == ALL || pattern == word)
}

fn url_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> Rule {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        let group = |word: &str| if word == "core" { String::new() } else { word.to_owned() };
        Rule {
            verbs: words(verbs),
            api_groups: groups.split_whitespace().map(group).collect(),
            resources: words(resources),
            resource_names: words(names),
            non_resource_urls: Vec::new(),
        }
    }

    fn urls(verbs: &str, urls: &str) -> Rule {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        Rule { verbs: words(verbs), non_resource_urls: words(urls), ..Rule::default() }
    }

    fn request(verb: &str, group: &str, resource: &str, subresource: &str, name: &str) -> Attributes {
        Attributes {
            verb: verb.into(),
            resource_request: true,
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            name: name.into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn rules_allow_what_they_name() {
        let cases = [
            (rule("get", "core", "pods", ""), request("get", "", "pods", "", "a"), true),
            (rule("get", "core", "pods", ""), request("list", "", "pods", "", ""), false),
            (rule("get", "core", "pods", ""), request("get", "apps", "pods", "", "a"), false),
            (rule("get", "core", "pods", ""), request("get", "", "pods", "log", "a"), false),
            (rule("get", "core", "pods/log", ""), request("get", "", "pods", "log", "a"), true),
            (rule("get", "core", "pods/log", ""), request("get", "", "pods", "", "a"), false),
            (rule("get", "*", "*/scale", ""), request("get", "apps", "deployments", "scale", "a"), true),
            (rule("get", "*", "*/scale", ""), request("get", "apps", "deployments", "", "a"), false),
            (rule("*", "*", "*", ""), request("delete", "x", "y", "z", "a"), true),
            (rule("get", "core", "secrets", "a b"), request("get", "", "secrets", "", "b"), true),
            (rule("get", "core", "secrets", "a b"), request("get", "", "secrets", "", "c"), false),
            (rule("list", "core", "secrets", "a"), request("list", "", "secrets", "", ""), false),
        ];
        for (rule, request, expected) in cases {
            assert_eq!(rule.allows(&request), expected, "{} {request:?}", rule.describe());
        }
    }

    #[test]
    fn urls_match_by_prefix() {
        let path = |path: &str| Attributes { verb: "get".into(), path: path.into(), ..Attributes::default() };
        let rule = urls("get", "/healthz /api/*");
        for (of, expected) in [("/healthz", true), ("/healthz/x", false), ("/api/v1", true), ("/api", false)] {
            assert_eq!(rule.allows(&path(of)), expected, "{of}");
        }
        assert!(urls("*", "*").allows(&path("/anything")));
        assert!(!rule.allows(&request("get", "", "healthz", "", "")));
    }

    #[test]
    fn coverage_is_atom_by_atom() {
        let owned = [rule("get list", "core", "pods services", ""), rule("get", "core", "secrets", "a")];
        let covered = |wanted: Rule| uncovered(&owned, &[wanted]).is_empty();
        assert!(covered(rule("list", "core", "services", "")));
        assert!(covered(rule("get", "core", "pods secrets", "a")));
        assert!(!covered(rule("get", "core", "secrets", "")));
        assert!(!covered(rule("get", "core", "secrets", "a b")));
        assert!(!covered(rule("watch", "core", "pods", "")));
        assert!(!covered(rule("*", "core", "pods", "")));
        assert!(!covered(urls("get", "/metrics")));
        assert!(
            uncovered(&[rule("*", "*", "*", ""), urls("*", "*")], &[urls("get", "/x"), owned[0].clone()]).is_empty()
        );
        assert!(!uncovered(&[rule("*", "*", "*", "")], &[urls("get", "/x")]).is_empty());
        assert!(
            uncovered(&[rule("get", "*", "*/scale", "")], &[rule("get", "apps", "deployments/scale", "")]).is_empty()
        );
        let missing = uncovered(&owned, &[rule("get watch delete", "core", "pods", "")]);
        assert_eq!(missing, [rule("watch delete", "core", "pods", "")]);
    }
}
