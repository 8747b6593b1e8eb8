//! Where volumes come from: the rules of each source, of pods' volumes and of persistent ones.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::containers::{local_path, no_backsteps, range};
use super::node::Node;
use super::{volumes, within};
use crate::field::{ErrorList, FieldError};
use crate::names;

/// What has the volume.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Pod,
    Template,
    /// Here secrets are named with their namespace.
    PersistentVolume,
}

type Check = fn(&Node<'_>, Holder, &mut ErrorList);

/// A source: its member, members of its own that must be there, and what else is checked.
struct Source {
    member: &'static str,
    needed: &'static [&'static str],
    more: Check,
}

const fn row(member: &'static str, needed: &'static [&'static str]) -> Source {
    Source { member, needed, more: |_, _, _| {} }
}

impl Source {
    const fn and(self, more: Check) -> Self {
        Self { more, ..self }
    }
}

/// In upstream's order: of several the first counts.
const SOURCES: &[Source] = &[
    row("emptyDir", &[]).and(|source, _, errors| {
        let limit = source.child("sizeLimit");
        if limit.quantity().is_some_and(|amount| amount.sign() < 0) {
            errors.push(FieldError::forbidden(&limit.path, "SizeLimit field must be a valid resource quantity"));
        }
    }),
    row("hostPath", &["path"]).and(|source, _, errors| no_backsteps(&source.child("path"), errors)),
    row("gitRepo", &["repository"]).and(|source, _, errors| local_path(&source.child("directory"), errors)),
    row("gcePersistentDisk", &["pdName"]).and(partition),
    row("awsElasticBlockStore", &["volumeID"]).and(partition),
    row("secret", &["secretName"]).and(|source, _, errors| volumes::files(source, errors)),
    row("nfs", &["server", "path"]).and(|source, _, errors| {
        let path = source.child("path");
        if !path.text().starts_with('/') {
            errors.push(FieldError::invalid(&path.path, path.text(), "must be an absolute path"));
        }
    }),
    row("iscsi", &["targetPortal", "iqn"]).and(iscsi),
    row("glusterfs", &["endpoints", "path"]).and(|source, holder, errors| {
        let namespace = source.child("endpointsNamespace");
        if holder == Holder::PersistentVolume && namespace.is_set() {
            if namespace.is_empty() {
                let message = "if the endpointnamespace is set, it must be a valid namespace name";
                errors.push(FieldError::invalid(&namespace.path, "", message));
            } else {
                errors.invalid_each(&namespace.path, namespace.text(), names::dns1123_label(namespace.text()));
            }
        }
    }),
    row("flocker", &[]).and(flocker),
    row("persistentVolumeClaim", &["claimName"]),
    row("rbd", &["monitors", "image"]),
    row("cinder", &["volumeID"]).and(|source, holder, errors| secret(&source.child("secretRef"), holder, errors)),
    row("cephfs", &["monitors"]),
    row("quobyte", &["volume"]).and(quobyte),
    row("downwardAPI", &[]).and(|source, _, errors| volumes::downward(source, source, errors)),
    row("fc", &[]).and(fibre_channel),
    row("flexVolume", &["driver"]).and(flex_options),
    row("configMap", &["name"]).and(|source, _, errors| volumes::files(source, errors)),
    row("azureFile", &["secretName", "shareName"]).and(|source, holder, errors| {
        let namespace = source.child("secretNamespace");
        if holder == Holder::PersistentVolume && namespace.is_set() && namespace.is_empty() {
            errors.push(FieldError::required(&namespace.path, ""));
        }
    }),
    row("vsphereVolume", &["volumePath"]),
    row("photonPersistentDisk", &["pdID"]),
    row("portworxVolume", &["volumeID"]),
    row("azureDisk", &["diskName", "diskURI"]).and(azure_disk),
    row("storageos", &["volumeName"]).and(|source, holder, errors| {
        for member in ["volumeName", "volumeNamespace"] {
            let name = source.child(member);
            if !name.is_empty() {
                errors.invalid_each(&name.path, name.text(), names::dns1123_label(name.text()));
            }
        }
        secret(&source.child("secretRef"), holder, errors);
    }),
    row("projected", &[]).and(|source, _, errors| volumes::projected(source, errors)),
    row("scaleIO", &["gateway", "system", "volumeName"]),
    row("local", &["path"]).and(|source, _, errors| no_backsteps(&source.child("path"), errors)),
    row("csi", &[]).and(csi),
    row("ephemeral", &["volumeClaimTemplate"]).and(|source, _, errors| {
        let template = source.child("volumeClaimTemplate");
        if template.is_set() {
            volumes::claim_template(&template, errors);
        }
    }),
    row("image", &[]).and(|source, holder, errors| {
        let reference = source.child("reference");
        // A template's may be filled in by whoever makes pods of it.
        if holder == Holder::Pod && reference.is_empty() {
            errors.push(FieldError::required(&reference.path, ""));
        }
    }),
];

/// Checks the one source of a volume; other members of what holds it are no concern of this.
pub(super) fn source(volume: &Node<'_>, holder: Holder, errors: &mut ErrorList) {
    let mut given = SOURCES.iter().map(|row| (row, volume.child(row.member))).filter(|(_, source)| source.is_set());
    let Some((row, source)) = given.next() else {
        errors.push(FieldError::required(&volume.path, "must specify a volume type"));
        return;
    };
    for member in row.needed.iter().map(|member| source.child(member)).filter(Node::is_empty) {
        errors.push(FieldError::required(&member.path, ""));
    }
    (row.more)(&source, holder, errors);
    for (_, extra) in given {
        errors.push(FieldError::forbidden(&extra.path, "may not specify more than 1 volume type"));
    }
}

fn partition(source: &Node<'_>, _: Holder, errors: &mut ErrorList) {
    let partition = source.child("partition");
    // None is 0.
    if !(0..=255).contains(&partition.integer().unwrap_or_default()) {
        range(&partition, vec![names::inclusive_range(1, 255)], errors);
    }
}

/// A reference to a Secret; a persistent volume's has a namespace.
fn secret(reference: &Node<'_>, holder: Holder, errors: &mut ErrorList) {
    if !reference.is_set() {
        return;
    }
    let needed: &[&str] = if holder == Holder::PersistentVolume { &["name", "namespace"] } else { &["name"] };
    for member in needed.iter().map(|member| reference.child(member)).filter(Node::is_empty) {
        errors.push(FieldError::required(&member.path, ""));
    }
}

/// Names of initiators by how they begin.
#[allow(clippy::expect_used, reason = "constants, which a test compiles")]
static INITIATORS: LazyLock<[(&str, Regex); 3]> = LazyLock::new(|| {
    [
        ("iqn", r"iqn\.[0-9]{4}-[0-9]{2}\.([[:alnum:].-]+)(:[^,;*&$|\s]+)$"),
        ("eui", r"^eui.[[:alnum:]]{16}$"),
        ("naa", r"^naa.[[:alnum:]]{32}$"),
    ]
    .map(|(start, pattern)| (start, Regex::new(pattern).expect("a good expression")))
});

fn iscsi(source: &Node<'_>, holder: Holder, errors: &mut ErrorList) {
    let initiator = source.child("initiatorName").renamed(&source.path.child("initiatorname"));
    let given = [Some(source.child("iqn")).filter(|name| !name.is_empty()), Some(initiator).filter(Node::is_set)];
    for name in given.into_iter().flatten() {
        let message = match INITIATORS.iter().find(|(start, _)| name.text().starts_with(start)) {
            Some((_, pattern)) => (!pattern.is_match(name.text())).then_some("must be valid format"),
            None if holder == Holder::PersistentVolume => Some("must be valid format"),
            None => Some("must be valid format starting with iqn, eui, or naa"),
        };
        if let Some(message) = message {
            errors.push(FieldError::invalid(&name.path, name.text(), message));
        }
    }
    within(&source.child("lun"), 0, 255, errors);
    let authenticates = ["chapAuthDiscovery", "chapAuthSession"].iter().any(|member| source.child(member).is_true());
    let reference = source.child("secretRef");
    if authenticates && !reference.is_set() {
        errors.push(FieldError::required(&reference.path, ""));
    }
    if holder == Holder::PersistentVolume && reference.is_set() && reference.child("name").is_empty() {
        errors.push(FieldError::required(&reference.path.child("name"), ""));
    }
}

fn flocker(source: &Node<'_>, _: Holder, errors: &mut ErrorList) {
    let (name, id) = (source.child("datasetName"), source.child("datasetUUID"));
    match (name.is_empty(), id.is_empty()) {
        (true, true) => {
            errors.push(FieldError::required(&source.path, "one of datasetName and datasetUUID is required"));
        }
        (false, false) => {
            let message = "datasetName and datasetUUID can not be specified simultaneously";
            errors.push(FieldError::invalid(&source.path, "resource", message));
        }
        _ => {}
    }
    if name.text().contains('/') {
        errors.push(FieldError::invalid(&name.path, name.text(), "must not contain '/'"));
    }
}

fn quobyte(source: &Node<'_>, _: Holder, errors: &mut ErrorList) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    const LONGEST_TENANT: usize = 64;
    let (registry, tenant) = (source.child("registry"), source.child("tenant"));
    if registry.is_empty() {
        errors.push(FieldError::required(&registry.path, PAIRS));
    } else if tenant.text().len() > LONGEST_TENANT {
        let message = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(FieldError::required(&tenant.path, message));
    } else {
        let is_pair =
            |pair: &str| pair.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
        for _ in registry.text().split(',').filter(|pair| !is_pair(pair)) {
            errors.push(FieldError::invalid(&registry.path, registry.text(), PAIRS));
        }
    }
}

fn fibre_channel(source: &Node<'_>, _: Holder, errors: &mut ErrorList) {
    let (targets, ids, lun) = (source.child("targetWWNs"), source.child("wwids"), source.child("lun"));
    match (targets.is_empty(), ids.is_empty()) {
        (true, true) => {
            let message = "must specify either targetWWNs or wwids, but not both";
            errors.push(FieldError::required(&targets.path, message));
        }
        (false, false) => {
            let message = "targetWWNs and wwids can not be specified simultaneously";
            errors.push(FieldError::invalid(&targets.path, targets.value.clone(), message));
        }
        _ => {}
    }
    if !targets.is_empty() {
        if lun.is_set() {
            within(&lun, 0, 255, errors);
        } else {
            errors.push(FieldError::required(&lun.path, "lun is required if targetWWNs is specified"));
        }
    }
}

fn flex_options(source: &Node<'_>, _: Holder, errors: &mut ErrorList) {
    for (key, option) in source.child("options").entries() {
        let domain = format!(".{}", key.split_once('/').map_or(key.as_str(), |(domain, _)| domain).to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let message = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(FieldError::invalid(&option.path, key.as_str(), message));
        }
    }
}

fn azure_disk(source: &Node<'_>, _: Holder, errors: &mut ErrorList) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    let (kind, uri) = (source.child("kind"), source.child("diskURI"));
    let (start, wanted) = if kind.text() == "Managed" { ("/subscriptions/", MANAGED) } else { ("https://", BLOB) };
    if kind.is_set() && !uri.text().starts_with(start) {
        errors.push(FieldError::not_supported(&uri.path, uri.text(), &[wanted]));
    }
}

fn csi(source: &Node<'_>, holder: Holder, errors: &mut ErrorList) {
    const LONGEST: usize = 63;
    let driver = source.child("driver");
    if driver.is_empty() {
        errors.push(FieldError::required(&driver.path, ""));
    }
    if driver.text().len() > LONGEST {
        errors.push(FieldError::too_long(&driver.path, LONGEST));
    }
    errors.invalid_each(&driver.path, driver.text(), names::dns1123_subdomain(&driver.text().to_lowercase()));
    if holder != Holder::PersistentVolume {
        let reference = source.child("nodePublishSecretRef");
        let name = reference.child("name");
        if reference.is_set() && name.is_empty() {
            errors.push(FieldError::required(&name.path, ""));
        } else if reference.is_set() {
            errors.invalid_each(&source.path.child("name"), name.text(), names::dns1123_subdomain(name.text()));
        }
        return;
    }
    let handle = source.child("volumeHandle");
    if handle.is_empty() {
        errors.push(FieldError::required(&handle.path, ""));
    }
    const SECRETS: [&str; 4] =
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"];
    let checks: [(&str, super::NameCheck); 2] =
        [("name", names::dns1123_subdomain), ("namespace", names::dns1123_label)];
    for reference in SECRETS.iter().map(|member| source.child(member)).filter(Node::is_set) {
        for (member, check) in checks {
            let name = reference.child(member);
            if name.is_empty() {
                errors.push(FieldError::required(&name.path, ""));
            } else {
                errors.invalid_each(&name.path, name.text(), check(name.text()));
            }
        }
    }
}

/// The sources a specification names, as they are: what may not change.
pub(super) fn given(spec: &Node<'_>) -> serde_json::Map<String, Value> {
    SOURCES
        .iter()
        .map(|row| (row.member, spec.child(row.member)))
        .filter(|(_, source)| source.is_set())
        .map(|(member, source)| (member.to_owned(), source.value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::validate::tests::created;

    fn refused(source: Value) -> Vec<String> {
        let mut volume = source;
        volume["name"] = json!("v");
        created("", "Pod", json!({"spec": {"containers": [{"name": "c", "image": "i"}], "volumes": [volume]}}))
    }

    #[test]
    fn sources_of_a_pods_volumes() {
        let iqn = "iqn.2001-04.com.example:storage.kube.sys1.xyz";
        for good in [
            json!({"emptyDir": {"sizeLimit": "1Gi"}}),
            json!({"iscsi": {"targetPortal": "1.2.3.4", "iqn": iqn, "lun": 1, "initiatorName": iqn}}),
            json!({"iscsi": {"targetPortal": "1.2.3.4", "iqn": "eui.0123456789ABCDEF", "lun": 1}}),
            json!({"quobyte": {"registry": "a:1,[::1]:2", "volume": "v"}}),
            json!({"fc": {"wwids": ["w"]}}),
            json!({"csi": {"driver": "Example.com"}}),
            json!({"azureDisk": {"diskName": "d", "diskURI": "https://x", "kind": "Dedicated"}}),
        ] {
            assert_eq!(refused(good.clone()), Vec::<String>::new(), "{good}");
        }
        for (source, wanted) in [
            (
                json!({"configMap": {"name": "m"}, "secret": {"secretName": "s"}}),
                "spec.volumes[0].configMap: Forbidden: may not specify more than 1 volume type",
            ),
            (
                json!({"emptyDir": {"sizeLimit": "-1"}}),
                "spec.volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
            ),
            (json!({"rbd": {"monitors": ["m"], "image": ""}}), "spec.volumes[0].rbd.image: Required value"),
            (
                json!({"iscsi": {"targetPortal": "p", "iqn": "iqn.x", "lun": 1}}),
                "spec.volumes[0].iscsi.iqn: Invalid value: \"iqn.x\": must be valid format",
            ),
            (
                json!({"iscsi": {"targetPortal": "p", "iqn": iqn, "lun": 256}}),
                "spec.volumes[0].iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive",
            ),
            (
                json!({"iscsi": {"targetPortal": "p", "iqn": iqn, "lun": 1, "chapAuthSession": true}}),
                "spec.volumes[0].iscsi.secretRef: Required value",
            ),
            (
                json!({"fc": {"targetWWNs": ["w"]}}),
                "spec.volumes[0].fc.lun: Required value: lun is required if targetWWNs is specified",
            ),
            (
                json!({"flocker": {}}),
                "spec.volumes[0].flocker: Required value: one of datasetName and datasetUUID is required",
            ),
            (
                json!({"flexVolume": {"driver": "d", "options": {"a.k8s.io/b": "c"}}}),
                "spec.volumes[0].flexVolume.options[a.k8s.io/b]: Invalid value: \"a.k8s.io/b\": kubernetes.io and k8s.io namespaces are reserved",
            ),
            (
                json!({"csi": {"driver": "d", "nodePublishSecretRef": {"name": ""}}}),
                "spec.volumes[0].csi.nodePublishSecretRef.name: Required value",
            ),
            (json!({"image": {}}), "spec.volumes[0].image.reference: Required value"),
            (
                json!({"gitRepo": {"repository": "r", "directory": "../x"}}),
                "spec.volumes[0].gitRepo.directory: Invalid value: \"../x\": must not contain '..'",
            ),
        ] {
            assert_eq!(refused(source.clone()), [wanted], "{source}");
        }
    }
}
