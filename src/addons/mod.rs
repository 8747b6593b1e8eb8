//! Addons: a folder with manifests and a row each. The node applies those its configuration names, by server-side apply.

/// One row.
pub struct Addon {
    pub name: &'static str,
    /// Applied unless the user says otherwise.
    pub default: bool,
    /// YAML documents; `{{image}}` and the like are filled in by [`render`].
    manifests: &'static str,
    /// Deployments in kube-system that are available once it works.
    pub deployments: &'static [&'static str],
}

/// Every addon there is.
pub const TABLE: &[Addon] = &[
    Addon {
        name: "coredns",
        default: true,
        manifests: include_str!("coredns/manifests.yaml"),
        deployments: &["coredns"],
    },
    Addon {
        name: "storage-provisioner",
        default: true,
        manifests: include_str!("storage-provisioner/manifests.yaml"),
        deployments: &["storage-provisioner"],
    },
    Addon {
        name: "default-storageclass",
        default: true,
        manifests: include_str!("default-storageclass/manifests.yaml"),
        deployments: &[],
    },
];

/// Name of the image that the binary itself is, as pods of the cluster call it.
pub fn built_in_image() -> String {
    format!("kminik.local/node:v{}", crate::version::KMINIK)
}

/// Values that manifests may use.
#[derive(Clone, Debug)]
pub struct Values {
    pub cluster_dns: String,
    pub cluster_domain: String,
}

/// The addon's objects as YAML.
pub fn render(addon: &Addon, values: &Values) -> String {
    addon
        .manifests
        .replace("{{image}}", &built_in_image())
        .replace("{{clusterDNS}}", &values.cluster_dns)
        .replace("{{clusterDomain}}", &values.cluster_domain)
}

/// Images that the manifests name, but for the built-in one.
pub fn images() -> Vec<String> {
    let lines = TABLE.iter().flat_map(|addon| addon.manifests.lines());
    let named = lines.filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("image:"));
    let mut images: Vec<String> = named
        .map(|name| name.trim().trim_matches(['"', '\'']).to_owned())
        .filter(|name| !name.contains("{{"))
        .collect();
    images.sort();
    images.dedup();
    images
}

pub fn default_names() -> Vec<&'static str> {
    TABLE.iter().filter(|a| a.default).map(|a| a.name).collect()
}

/// Deployments of the default addons.
pub fn deployments() -> Vec<&'static str> {
    TABLE.iter().filter(|a| a.default).flat_map(|a| a.deployments.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[test]
    fn manifests_are_whole_and_their_deployments_exist() {
        let values = Values { cluster_dns: "10.96.0.10".into(), cluster_domain: "cluster.local".into() };
        for addon in TABLE {
            let text = render(addon, &values);
            assert!(!text.contains("{{"), "{}: something is not filled in", addon.name);
            let mut deployments = Vec::new();
            for document in serde_yaml::Deserializer::from_str(&text) {
                let object = serde_yaml::Value::deserialize(document).unwrap();
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                if object["kind"].as_str().unwrap() == "Deployment" {
                    deployments.push(name);
                }
            }
            assert_eq!(deployments, addon.deployments, "{}", addon.name);
        }
    }
}
