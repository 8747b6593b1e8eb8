//! The shape of the bootstrap data: lists are words separated by blanks, `core` stands for the group without a name.

use super::rules::Rule;

/// A role as data.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoleRow {
    pub(super) name: &'static str,
    pub(super) rules: &'static [RuleRow],
    /// Its rules are those of all cluster roles labelled `aggregate-to-<this>`.
    pub(super) aggregates: Option<&'static str>,
    /// It carries the label `aggregate-to-<this>`.
    pub(super) aggregated_to: Option<&'static str>,
}

/// A rule as data.
#[derive(Clone, Copy, Debug)]
pub(in crate::auth) struct RuleRow {
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
    urls: &'static str,
}

pub(super) const fn role(name: &'static str, rules: &'static [RuleRow]) -> RoleRow {
    RoleRow { name, rules, aggregates: None, aggregated_to: None }
}

impl RoleRow {
    pub(super) const fn aggregating(mut self, what: &'static str) -> Self {
        self.aggregates = Some(what);
        self
    }

    pub(super) const fn aggregated_to(mut self, what: &'static str) -> Self {
        self.aggregated_to = Some(what);
        self
    }
}

/// These verbs on these resources of these groups.
pub(super) const fn on(verbs: &'static str, groups: &'static str, resources: &'static str) -> RuleRow {
    RuleRow { verbs, groups, resources, names: "", urls: "" }
}

/// As [`on`], for objects of these names only.
pub(super) const fn named(
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
) -> RuleRow {
    RuleRow { verbs, groups, resources, names, urls: "" }
}

/// These verbs on paths that are no resources.
pub(super) const fn urls(verbs: &'static str, urls: &'static str) -> RuleRow {
    RuleRow { verbs, groups: "", resources: "", names: "", urls }
}

impl RuleRow {
    pub(in crate::auth) fn rule(&self) -> Rule {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        let group = |word: &str| if word == "core" { String::new() } else { word.to_owned() };
        Rule {
            verbs: words(self.verbs),
            api_groups: self.groups.split_whitespace().map(group).collect(),
            resources: words(self.resources),
            resource_names: words(self.names),
            non_resource_urls: words(self.urls),
        }
    }

    /// [`RuleRow::rule`] for a controller: ours write patches where upstream's send whole objects.
    pub(in crate::auth) fn controller_rule(&self) -> Rule {
        let mut rule = self.rule();
        if rule.verbs.iter().any(|verb| verb == "update") && !rule.verbs.iter().any(|verb| verb == "patch") {
            rule.verbs.push("patch".to_owned());
        }
        rule
    }
}
