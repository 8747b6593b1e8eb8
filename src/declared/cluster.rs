//! Our own format: one table of its fields, each a flag of start.
//!
//! ```yaml
//! apiVersion: kminik.io/v1alpha1
//! kind: Cluster
//! metadata: {name: dev}
//! spec: {driver: native, registries: {country: cn}}
//! ```
//! Unknown fields are refused. Relative paths are relative to the file's own directory.

use std::path::Path;

use serde_yaml::{Mapping, Value};

use super::{Declared, path};
use crate::settings::KEPT;

pub(super) const API_VERSION: &str = "kminik.io/v1alpha1";

/// One row: where it is in the file, which flag it is, in which form its value is written.
pub(super) struct Field {
    pub(super) path: &'static str,
    pub(super) flag: &'static str,
    pub(super) form: Form,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Whole,
    /// `4g`, or a number.
    Size,
    Switch,
    Texts,
    /// Of a file.
    Path,
    Paths,
    /// Name → value, each `name=value`; the value of one whose name ends in `-file` is a path.
    Settings,
}

const fn field(path: &'static str, flag: &'static str, form: Form) -> Field {
    Field { path, flag, form }
}

/// Every field there is.
pub(super) const FIELDS: &[Field] = &[
    field("metadata.name", "profile", Form::Text),
    field("spec.driver", "driver", Form::Text),
    field("spec.kubernetesVersion", "kubernetes-version", Form::Text),
    field("spec.nodes", "nodes", Form::Whole),
    field("spec.cpus", "cpus", Form::Size),
    field("spec.memory", "memory", Form::Size),
    field("spec.network.subnet", "subnet", Form::Text),
    field("spec.network.address", "static-ip", Form::Text),
    field("spec.network.engineNetwork", "network", Form::Text),
    field("spec.network.services", "service-cluster-ip-range", Form::Text),
    field("spec.network.domain", "dns-domain", Form::Text),
    field("spec.network.listen", "listen-address", Form::Text),
    field("spec.network.ports", "ports", Form::Texts),
    field("spec.network.apiPort", "apiserver-port", Form::Whole),
    field("spec.network.apiName", "apiserver-name", Form::Text),
    field("spec.network.apiAddresses", "apiserver-ips", Form::Texts),
    field("spec.network.apiNames", "apiserver-names", Form::Texts),
    field("spec.mounts", "mount-string", Form::Paths),
    field("spec.baseImage", "base-image", Form::Text),
    field("spec.registries.country", "image-mirror-country", Form::Text),
    field("spec.registries.mirrors", "registry-mirror", Form::Texts),
    field("spec.registries.repository", "image-repository", Form::Text),
    field("spec.registries.insecure", "insecure-registry", Form::Texts),
    field("spec.registries.authorities", "ca-cert", Form::Paths),
    field("spec.datastore.endpoints", "datastore-endpoint", Form::Texts),
    field("spec.datastore.caFile", "datastore-cafile", Form::Path),
    field("spec.datastore.certFile", "datastore-certfile", Form::Path),
    field("spec.datastore.keyFile", "datastore-keyfile", Form::Path),
    field("spec.certificates.expiration", "cert-expiration", Form::Text),
    field("spec.extraConfig", "extra-config", Form::Settings),
    field("spec.addons.enabled", "addons", Form::Texts),
    field("spec.addons.defaults", "install-addons", Form::Switch),
    field("spec.autostart", "autostart", Form::Switch),
    field("spec.kubeconfig.embedCerts", "embed-certs", Form::Switch),
    field("spec.kubeconfig.namespace", "namespace", Form::Text),
    field("spec.kubeconfig.keepContext", "keep-context", Form::Switch),
    field("spec.wait.for", "wait", Form::Texts),
    field("spec.wait.timeout", "wait-timeout", Form::Text),
];

/// Fields of the root that say what the file is.
const HEAD: [&str; 2] = ["apiVersion", "kind"];

pub(super) fn read(root: &Mapping, base: &Path) -> Result<Declared, String> {
    let mut declared = Declared::default();
    walk(root, "", base, &mut declared)?;
    Ok(declared)
}

fn walk(mapping: &Mapping, prefix: &str, base: &Path, declared: &mut Declared) -> Result<(), String> {
    for (key, value) in mapping {
        let Some(key) = key.as_str() else { return Err(format!("{prefix}{key:?} is no field")) };
        let name = format!("{prefix}{key}");
        if prefix.is_empty() && HEAD.contains(&key) || value.is_null() {
            continue;
        }
        let below = format!("{name}.");
        if let Some(field) = FIELDS.iter().find(|field| field.path == name) {
            let mut values =
                field.form.values(value, base).ok_or_else(|| format!("{name} is not {}", field.form.expected()))?;
            if values.is_empty() && KEPT.contains(&field.flag) {
                // An empty list is said as an empty flag.
                values.push(String::new());
            }
            declared.wish(field.flag, name, values);
        } else if FIELDS.iter().any(|field| field.path.starts_with(&below)) {
            let Value::Mapping(value) = value else { return Err(format!("{name} is not a mapping")) };
            walk(value, &below, base, declared)?;
        } else {
            return Err(format!("{name} is no field; there are: {}", siblings(prefix).join(", ")));
        }
    }
    Ok(())
}

/// Names of the fields right below this prefix.
fn siblings(prefix: &str) -> Vec<&'static str> {
    let mut names: Vec<&str> = FIELDS
        .iter()
        .filter_map(|field| field.path.strip_prefix(prefix))
        .map(|rest| rest.split('.').next().unwrap_or(rest))
        .collect();
    names.dedup();
    names
}

impl Form {
    /// As the flag takes them; `None` for a value of another form.
    fn values(self, value: &Value, base: &Path) -> Option<Vec<String>> {
        let texts = |value: &Value| {
            let list = value.as_sequence()?.iter().map(|one| one.as_str().map(str::to_owned));
            list.collect::<Option<Vec<String>>>()
        };
        match self {
            Form::Text => Some(vec![value.as_str()?.to_owned()]),
            Form::Whole => Some(vec![value.as_u64().filter(|number| *number > 0)?.to_string()]),
            Form::Size => Some(vec![scalar(value).filter(|_| !value.is_bool())?]),
            Form::Switch => Some(vec![value.as_bool()?.to_string()]),
            Form::Texts => texts(value),
            Form::Path => Some(vec![path(base, value.as_str()?)]),
            Form::Paths => Some(texts(value)?.iter().map(|one| path(base, one)).collect()),
            Form::Settings => {
                let setting = |(key, value): (&Value, &Value)| {
                    let (key, value) = (key.as_str()?, scalar(value)?);
                    let value = if key.ends_with("-file") { path(base, &value) } else { value };
                    Some(format!("{key}={value}"))
                };
                value.as_mapping()?.iter().map(setting).collect()
            }
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Form::Text => "a text (in quotes, where it looks like a number)",
            Form::Whole => "a whole number above 0",
            Form::Size => "a text or a whole number",
            Form::Switch => "true or false",
            Form::Texts => "a list of texts",
            Form::Path => "the path of a file",
            Form::Paths => "a list of paths",
            Form::Settings => "a mapping of names to texts, numbers or true and false",
        }
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(on) => Some(on.to_string()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Declared, String> {
        let Value::Mapping(root) = serde_yaml::from_str(text).unwrap() else { panic!("{text}") };
        read(&root, Path::new("/base"))
    }

    #[test]
    fn each_form_is_written_as_its_flag_takes_it() {
        let declared = read_text(
            "{spec: {memory: 4g, cpus: 2, baseImage: null, nodes: 1, datastore: {caFile: ../ca.crt, keyFile: /k}, \
             extraConfig: {apiserver.audit-policy-file: p.yaml, apiserver.audit-log-maxsize: 5}, \
             kubeconfig: {embedCerts: true}, wait: {for: [apiserver, node_ready], timeout: 90s}}}",
        )
        .unwrap();
        let said: Vec<String> =
            declared.wishes.iter().map(|wish| format!("{} {}", wish.flag, wish.values.join(" "))).collect();
        assert_eq!(
            said,
            [
                "memory 4g",
                "cpus 2",
                "nodes 1",
                "datastore-cafile /base/../ca.crt",
                "datastore-keyfile /k",
                "extra-config apiserver.audit-policy-file=/base/p.yaml apiserver.audit-log-maxsize=5",
                "embed-certs true",
                "wait apiserver node_ready",
                "wait-timeout 90s",
            ]
        );
        assert_eq!(declared.wishes[5].field, "spec.extraConfig");
    }

    #[test]
    fn an_empty_list_clears_one_that_is_kept() {
        let declared =
            read_text("{spec: {registries: {insecure: [], authorities: []}, extraConfig: {}, addons: {enabled: []}}}");
        let said: Vec<_> = declared.unwrap().wishes.into_iter().map(|wish| (wish.flag, wish.values)).collect();
        let empty = vec![String::new()];
        assert_eq!(said, ["insecure-registry", "ca-cert", "extra-config"].map(|flag| (flag, empty.clone())));
    }

    #[test]
    fn other_fields_and_forms_are_named() {
        for (text, why) in [
            ("{spec: {cpu: 2}}", "spec.cpu is no field; there are: driver, kubernetesVersion"),
            ("{spec: {registries: [a]}}", "spec.registries is not a mapping"),
            ("{spec: {registries: {mirrors: https://a}}}", "spec.registries.mirrors is not a list of texts"),
            ("{spec: {kubernetesVersion: 1.35}}", "in quotes"),
            ("{spec: {nodes: 0}}", "above 0"),
            ("{spec: {cpus: true}}", "spec.cpus is not"),
            ("{spec: {memory: 1.5}}", "spec.memory is not"),
            ("{spec: {kubeconfig: {embedCerts: 'yes'}}}", "true or false"),
            ("{status: {}}", "status is no field; there are: metadata, spec"),
            ("{1: 2}", "is no field"),
        ] {
            let told = read_text(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}
