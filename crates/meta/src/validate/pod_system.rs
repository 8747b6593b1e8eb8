//! Checks of what a pod's operating system and users allow, and of what is particular to Windows.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::node::Node;
use crate::field::{ErrorList, FieldError};
use crate::names;

pub(super) fn pod_system(spec: &Node<'_>, errors: &mut ErrorList) {
    let context = spec.child("securityContext");
    let containers: Vec<Node<'_>> = spec.containers().map(|one| one.child("securityContext")).collect();
    for one in containers.iter().chain([&context]) {
        windows_options(&one.child("windowsOptions"), errors);
    }
    host_process(spec, &context, &containers, errors);
    if spec.child("hostUsers").value == &Value::Bool(false) {
        // By upstream's own names of the members.
        for (member, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
            if spec.child(member).is_true() {
                let message = "when `pod.Spec.HostUsers` is false";
                errors.push(FieldError::forbidden(&spec.path.child(shown), message));
            }
        }
    }
    match spec.at(&["os", "name"]).text() {
        "linux" => linux(&context, &containers, errors),
        "windows" => windows(spec, &context, &containers, errors),
        _ => {}
    }
}

fn linux(context: &Node<'_>, containers: &[Node<'_>], errors: &mut ErrorList) {
    let all = [context].into_iter().chain(containers).map(|one| one.child("windowsOptions"));
    for options in all.filter(Node::is_set) {
        errors.push(FieldError::forbidden(&options.path, "windows options cannot be set for a linux pod"));
    }
}

fn windows(spec: &Node<'_>, context: &Node<'_>, containers: &[Node<'_>], errors: &mut ErrorList) {
    const OF_POD: [&str; 4] = ["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"];
    const OF_CONTEXT: [&str; 11] = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "fsGroup",
        "fsGroupChangePolicy",
        "sysctls",
        "runAsUser",
        "runAsGroup",
        "supplementalGroups",
        "supplementalGroupsPolicy",
        "seLinuxChangePolicy",
    ];
    const OF_CONTAINER: [&str; 10] = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    // Of these two, false is as good as nothing.
    let said =
        |member: &str, node: &Node<'_>| node.is_set() && (node.is_true() || !matches!(member, "hostPID" | "hostIPC"));
    let mut forbid = |member: &str, node: Node<'_>| {
        if said(member, &node) {
            errors.push(FieldError::forbidden(&node.path, "cannot be set for a windows pod"));
        }
    };
    OF_POD.iter().for_each(|member| forbid(member, spec.child(member)));
    OF_CONTEXT.iter().for_each(|member| forbid(member, context.child(member)));
    for container in containers {
        OF_CONTAINER.iter().for_each(|member| forbid(member, container.child(member)));
    }
}

/// Containers that run as processes of a Windows node: all of a pod's or none.
fn host_process(spec: &Node<'_>, context: &Node<'_>, containers: &[Node<'_>], errors: &mut ErrorList) {
    const MEMBER: [&str; 2] = ["windowsOptions", "hostProcess"];
    let whole = context.at(&MEMBER).value.as_bool();
    let mut count = 0;
    for own in containers.iter().map(|one| one.at(&MEMBER)) {
        let value = own.value.as_bool();
        if let (Some(whole), Some(value)) = (whole, value)
            && whole != value
        {
            let message = format!("pod hostProcess value must be identical if both are specified, was {whole}");
            errors.push(FieldError::invalid(&own.path, value, message));
        }
        count += usize::from(value.or(whole) == Some(true));
    }
    if count == 0 {
        return;
    }
    if count != containers.len() {
        let message = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(FieldError::invalid(&spec.path, "", message));
    }
    let network = spec.child("hostNetwork");
    if !network.is_true() {
        let message = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(FieldError::invalid(&network.path, false, message));
    }
}

fn windows_options(options: &Node<'_>, errors: &mut ErrorList) {
    const LARGEST_KIB: usize = 64;
    let (name, spec) = (options.child("gmsaCredentialSpecName"), options.child("gmsaCredentialSpec"));
    if name.is_set() {
        errors.invalid_each(&name.path, name.text(), names::dns1123_subdomain(name.text()));
    }
    if spec.is_set() && spec.is_empty() {
        errors.push(FieldError::invalid(&spec.path, "", "gmsaCredentialSpec cannot be an empty string"));
    } else if spec.text().len() > LARGEST_KIB * 1024 {
        let message = format!("gmsaCredentialSpec size must be under {LARGEST_KIB} KiB");
        errors.push(FieldError::invalid(&spec.path, spec.text(), message));
    }
    let user = options.child("runAsUserName");
    if user.is_set() {
        for message in user_name(user.text()) {
            errors.push(FieldError::invalid(&user.path, user.text(), message));
        }
    }
}

/// Names of domains of Windows' users.
#[allow(clippy::expect_used, reason = "constants, which a test compiles")]
static DOMAINS: LazyLock<[Regex; 2]> = LazyLock::new(|| {
    const LABEL: &str = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?";
    [r#"^[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}$"#.to_owned(), format!(r"^{LABEL}(?:\.{LABEL})*$")]
        .map(|pattern| Regex::new(&pattern).expect("a good expression"))
});

/// What is wrong with `USER` or `DOMAIN\USER`.
fn user_name(text: &str) -> Vec<String> {
    const DOMAIN_MAX: usize = 256;
    const USER_MAX: usize = 104;
    if text.is_empty() {
        return vec!["runAsUserName cannot be an empty string".into()];
    }
    if text.chars().any(|c| c.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters".into()];
    }
    let (domain, user) = match text.split_once('\\') {
        Some((_, user)) if user.contains('\\') => {
            return vec!["runAsUserName cannot contain more than one backslash".into()];
        }
        Some((domain, user)) => (Some(domain), user),
        None => (None, text),
    };
    let mut out = Vec::new();
    if domain.is_some_and(|domain| domain.len() >= DOMAIN_MAX) {
        out.push(format!("runAsUserName's Domain length must be under {DOMAIN_MAX} characters"));
    }
    if domain.is_some_and(|domain| !DOMAINS.iter().any(|pattern| pattern.is_match(domain))) {
        out.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format".into());
    }
    if user.is_empty() {
        out.push("runAsUserName's User cannot be empty".into());
    } else if user.len() > USER_MAX {
        out.push(format!("runAsUserName's User length must not be longer than {USER_MAX} characters"));
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        out.push("runAsUserName's User cannot contain only periods or spaces".into());
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        out.push(r#"runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]"#.into());
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::validate::tests::created;

    fn refused(spec: Value) -> Vec<String> {
        let mut all = json!({"containers": [{"name": "c", "image": "i"}]});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        created("", "Pod", json!({"spec": all}))
    }

    #[test]
    fn systems() {
        for (spec, wanted) in [
            (json!({"os": {"name": "windows"}, "hostPID": false}), vec![]),
            (
                json!({"hostUsers": false, "hostNetwork": true, "hostPID": true}),
                vec![
                    "spec.hostNetwork: Forbidden: when `pod.Spec.HostUsers` is false",
                    "spec.HostPID: Forbidden: when `pod.Spec.HostUsers` is false",
                ],
            ),
            (
                json!({"os": {"name": "windows"}, "securityContext": {"runAsUser": 1}}),
                vec!["spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod"],
            ),
            (
                json!({"os": {"name": "linux"}, "securityContext": {"windowsOptions": {"runAsUserName": "a"}}}),
                vec!["spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod"],
            ),
            (
                json!({"securityContext": {"windowsOptions": {"runAsUserName": "a\\b\\c"}}}),
                vec![
                    "spec.securityContext.windowsOptions.runAsUserName: Invalid value: \"a\\\\b\\\\c\": runAsUserName cannot contain more than one backslash",
                ],
            ),
            (
                json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
                vec![
                    "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers",
                ],
            ),
        ] {
            assert_eq!(refused(spec.clone()), wanted, "{spec}");
        }
        for (name, good) in
            [("DOMAIN\\User", true), ("example.com\\u", true), ("a?b\\u", false), ("...", false), ("u@x", false)]
        {
            assert_eq!(super::user_name(name).is_empty(), good, "{name}");
        }
    }
}
