//! Checks of flowcontrol: which requests belong together, and what share of the server they get.

use serde_json::json;

use super::node::Node;
use super::{Kind, required};
use crate::field::{ErrorList, FieldError};
use crate::names;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

pub(super) const KINDS: &[Kind] = &[
    Kind::new(GROUP, "FlowSchema", schema).status(status),
    Kind::new(GROUP, "PriorityLevelConfiguration", level).status(status),
];

const MAX_PRECEDENCE: i64 = 10_000;
const MAX_QUEUES: i64 = 10_000_000;
/// Bits of a flow's hash from which its hand of queues is dealt.
const MAX_HASH_BITS: f64 = 60.0;
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
/// A subject's kind and the member that names it.
const SUBJECTS: [(&str, &str); 3] = [("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];

fn schema(schema: &Node<'_>, errors: &mut ErrorList) {
    let spec = schema.child("spec");
    let precedence = spec.child("matchingPrecedence");
    let number = precedence.integer().unwrap_or_default();
    let mut wrong = |message: String| errors.push(FieldError::invalid(&precedence.path, number, message));
    if number <= 0 {
        wrong("must be a positive value".into());
    }
    if number > MAX_PRECEDENCE {
        wrong(format!("must not be greater than {MAX_PRECEDENCE}"));
    }
    if number == 1 && schema.at(&["metadata", "name"]).text() != "exempt" {
        wrong("only the schema named 'exempt' may have matchingPrecedence 1".into());
    }
    let method = spec.child("distinguisherMethod");
    let kind = method.child("type");
    if method.is_set() && !matches!(kind.text(), "ByNamespace" | "ByUser") {
        // Upstream shows the whole method in a form of its own.
        let shown = json!({ "Type": kind.text() });
        errors.push(FieldError::not_supported(&kind.path, shown, &["ByNamespace", "ByUser"]));
    }
    let level = spec.at(&["priorityLevelConfiguration", "name"]);
    if level.is_empty() {
        errors.push(FieldError::required(&level.path, "must reference a priority level"));
    } else {
        errors.invalid_each(&level.path, level.text(), names::dns1123_subdomain(level.text()));
    }
    spec.child("rules").items().for_each(|rule| self::rule(&rule, errors));
}

fn rule(rule: &Node<'_>, errors: &mut ErrorList) {
    let subjects = rule.child("subjects");
    if subjects.is_empty() {
        errors.push(FieldError::required(&subjects.path, "subjects must contain at least one value"));
    }
    subjects.items().for_each(|subject| self::subject(&subject, errors));
    let (resources, others) = (rule.child("resourceRules"), rule.child("nonResourceRules"));
    if resources.is_empty() && others.is_empty() {
        let message = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(&rule.path, message));
    }
    for rule in resources.items() {
        verbs(&rule.child("verbs"), errors);
        let groups = "resource rules must supply at least one api group";
        words(&rule.child("apiGroups"), groups, "api groups", errors);
        let resources = "resource rules must supply at least one resource";
        words(&rule.child("resources"), resources, "resources", errors);
        namespaces(&rule, errors);
    }
    for rule in others.items() {
        verbs(&rule.child("verbs"), errors);
        let urls = rule.child("nonResourceURLs");
        let all = words(&urls, "nonResourceURLs must contain at least one value", "non-resource URLs", errors);
        if !all {
            urls.items().for_each(|url| path(&url, errors));
        }
    }
}

fn subject(subject: &Node<'_>, errors: &mut ErrorList) {
    let kind = subject.child("kind");
    let Some((_, own)) = SUBJECTS.iter().find(|(name, _)| *name == kind.text()) else {
        let kinds = SUBJECTS.map(|(name, _)| name);
        errors.push(FieldError::not_supported(&kind.path, kind.text(), &kinds));
        return;
    };
    let node = subject.child(own);
    if !node.is_set() {
        let message = format!("{own} is required when subject kind is '{}'", kind.text());
        errors.push(FieldError::required(&node.path, message));
    } else if required(&node.child("name"), errors) && *own == "serviceAccount" && node.child("name").text() != "*" {
        let name = node.child("name");
        errors.invalid_each(&name.path, name.text(), names::dns1123_subdomain(name.text()));
    }
    let namespace = node.child("namespace");
    if node.is_set() && *own == "serviceAccount" {
        if namespace.is_empty() {
            let message = "must specify namespace for service account";
            errors.push(FieldError::required(&namespace.path, message));
        } else {
            errors.invalid_each(&namespace.path, namespace.text(), names::dns1123_label(namespace.text()));
        }
    }
    for (name, member) in SUBJECTS.iter().filter(|(_, member)| member != own) {
        let other = subject.child(member);
        if other.is_set() {
            let message = format!("{member} is forbidden when subject kind is not '{name}'");
            errors.push(FieldError::forbidden(&other.path, message));
        }
    }
}

fn verbs(list: &Node<'_>, errors: &mut ErrorList) {
    let all = words(list, "verbs must contain at least one value", "verbs", errors);
    if !all && list.items().any(|verb| !VERBS.contains(&verb.text())) {
        errors.push(FieldError::not_supported(&list.path, list.value.clone(), &VERBS));
    }
}

/// A list that must have words, and no other beside `*`; whether it has `*`.
fn words(list: &Node<'_>, absent: &str, what: &str, errors: &mut ErrorList) -> bool {
    if list.is_empty() {
        errors.push(FieldError::required(&list.path, absent));
    }
    let all = list.items().any(|word| word.text() == "*");
    if all && list.items().count() > 1 {
        let message = format!("if '*' is present, must not specify other {what}");
        errors.push(FieldError::invalid(&list.path, list.value.clone(), message));
    }
    all
}

fn namespaces(rule: &Node<'_>, errors: &mut ErrorList) {
    let list = rule.child("namespaces");
    if list.is_empty() {
        if !rule.child("clusterScope").is_true() {
            let message = "resource rules that are not cluster scoped must supply at least one namespace";
            errors.push(FieldError::required(&list.path, message));
        }
    } else if !words(&list, "", "namespaces", errors) {
        for namespace in list.items() {
            for message in names::dns1123_label(namespace.text()) {
                let message = format!("each member of this list must be '*' or a DNS-1123 label; {message}");
                errors.push(FieldError::invalid(&namespace.path, namespace.text(), message));
            }
        }
    }
}

/// A path of a URL, perhaps with `/*` at its end.
fn path(node: &Node<'_>, errors: &mut ErrorList) {
    let text = node.text();
    let message = match text {
        "/" => return,
        "" => "must not be empty",
        _ if !text.starts_with('/') => "must start with slash",
        _ if text.contains(' ') => "must not contain white-space",
        _ if text.contains("//") => "must not contain double slash",
        _ if text.strip_suffix("/*").unwrap_or(text).contains('*') => "wildcard can only do suffix matching",
        _ => return,
    };
    errors.push(FieldError::invalid(&node.path, text, message));
}

fn level(level: &Node<'_>, errors: &mut ErrorList) {
    let spec = level.child("spec");
    let kind = spec.child("type");
    if (level.at(&["metadata", "name"]).text() == "exempt") != (kind.text() == "Exempt") {
        let message = "type must be 'Exempt' if and only if name is 'exempt'";
        errors.push(FieldError::invalid(&kind.path, kind.text(), message));
    }
    let (limited, exempt) = (spec.child("limited"), spec.child("exempt"));
    match kind.text() {
        "Exempt" => {
            if limited.is_set() {
                errors.push(FieldError::forbidden(&limited.path, "must be nil if the type is not Limited"));
            }
            shares(&exempt, errors);
        }
        "Limited" => {
            if exempt.is_set() {
                errors.push(FieldError::forbidden(&exempt.path, "must be nil if the type is Limited"));
            }
            if limited.is_set() {
                self::limited(&limited, errors);
            } else {
                errors.push(FieldError::required(&limited.path, "must not be empty when type is Limited"));
            }
        }
        other => errors.push(FieldError::not_supported(&kind.path, other, &["Exempt", "Limited"])),
    }
}

fn shares(node: &Node<'_>, errors: &mut ErrorList) {
    let (shares, lendable) = (node.child("nominalConcurrencyShares"), node.child("lendablePercent"));
    if let Some(number) = shares.integer().filter(|number| *number < 0) {
        errors.push(FieldError::invalid(&shares.path, number, "must be a non-negative integer"));
    }
    if let Some(number) = lendable.integer().filter(|number| !(0..=100).contains(number)) {
        errors.push(FieldError::invalid(&lendable.path, number, names::inclusive_range(0, 100)));
    }
}

fn limited(limited: &Node<'_>, errors: &mut ErrorList) {
    shares(limited, errors);
    let borrowing = limited.child("borrowingLimitPercent");
    if let Some(number) = borrowing.integer().filter(|number| *number < 0) {
        let message = "if specified, must be a non-negative integer";
        errors.push(FieldError::invalid(&borrowing.path, number, message));
    }
    let response = limited.child("limitResponse");
    let (kind, queuing) = (response.child("type"), response.child("queuing"));
    match (kind.text(), queuing.is_set()) {
        ("Reject", true) => {
            let message = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(FieldError::forbidden(&queuing.path, message));
        }
        ("Queue", false) => {
            let message = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(FieldError::required(&queuing.path, message));
        }
        ("Queue", true) => self::queuing(&queuing, errors),
        ("Reject", false) => {}
        (other, _) => errors.push(FieldError::not_supported(&kind.path, other, &["Queue", "Reject"])),
    }
}

fn queuing(queuing: &Node<'_>, errors: &mut ErrorList) {
    let [length, queues, hand] = ["queueLengthLimit", "queues", "handSize"].map(|member| queuing.child(member));
    let number = |node: &Node<'_>| node.integer().unwrap_or_default();
    let mut wrong =
        |node: &Node<'_>, message: String| errors.push(FieldError::invalid(&node.path, number(node), message));
    if number(&length) <= 0 {
        wrong(&length, "must be positive".into());
    }
    let (deck, size) = (number(&queues), number(&hand));
    if deck <= 0 {
        wrong(&queues, "must be positive".into());
    } else if deck > MAX_QUEUES {
        wrong(&queues, format!("must not be greater than {MAX_QUEUES}"));
    }
    if size <= 0 {
        wrong(&hand, "must be positive".into());
    } else if size > deck {
        wrong(&hand, format!("should not be greater than queues ({deck})"));
    } else if ((deck as f64).log2() * size as f64).ceil() > MAX_HASH_BITS {
        let message = format!(
            "required entropy bits of deckSize {deck} and handSize {size} should not be greater than {MAX_HASH_BITS}"
        );
        wrong(&hand, message);
    }
}

fn status(new: &Node<'_>, _old: &Node<'_>, errors: &mut ErrorList) {
    let mut seen = Vec::new();
    for condition in new.at(&["status", "conditions"]).items() {
        let kind = condition.child("type");
        if seen.contains(&kind.text()) {
            errors.push(FieldError::duplicate(&kind.path, kind.text()));
        }
        if kind.is_empty() {
            errors.push(FieldError::required(&kind.path, "must not be empty"));
        }
        seen.push(kind.text());
    }
}
