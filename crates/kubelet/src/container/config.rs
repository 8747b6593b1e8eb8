//! A container as the runtime is asked to create it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kminik_runtime::{ContainerConfig, Device, Mount, NamespaceMode};

use super::expand::expand;
use super::security::{self, SecurityError};
use super::{env, resources};
use crate::images::Image;
use crate::pods::observed::{annotation, label, pod_labels};
use crate::pods::view::{ContainerView, PodView};

/// Why a container cannot be configured; shown as CreateContainerConfigError.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error(transparent)]
    Env(#[from] env::EnvError),
    #[error(transparent)]
    Security(#[from] SecurityError),
    #[error("no command specified")]
    NoCommand,
}

/// What is decided outside this function.
pub(crate) struct Inputs<'a> {
    pub id: String,
    pub restart_count: u32,
    pub image: &'a Image,
    /// Name and value, complete.
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    /// The file on the node behind `terminationMessagePath`.
    pub termination_file: PathBuf,
    /// Directory of the pod's logs.
    pub log_dir: &'a Path,
    pub seccomp_dir: &'a Path,
    pub node_memory_bytes: i64,
    /// Ephemeral containers: id of the container whose processes it sees.
    pub target: Option<String>,
}

/// The configuration of one run of a container.
pub(crate) fn config(
    view: &PodView,
    container: &ContainerView,
    inputs: Inputs<'_>,
) -> Result<ContainerConfig, ConfigError> {
    let spec = &container.spec;
    let lookup = |name: &str| inputs.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let expanded = |list: &Option<Vec<String>>| -> Option<Vec<String>> {
        list.as_ref().filter(|l| !l.is_empty()).map(|list| list.iter().map(|text| expand(text, lookup)).collect())
    };
    let image = &inputs.image.config;
    // A command replaces the image's entry point and its arguments; arguments alone only the latter.
    let args = match (expanded(&spec.command), expanded(&spec.args)) {
        (Some(command), args) => [command, args.unwrap_or_default()].concat(),
        (None, Some(args)) => [image.entrypoint.clone(), args].concat(),
        (None, None) => [image.entrypoint.clone(), image.cmd.clone()].concat(),
    };
    if args.is_empty() {
        return Err(ConfigError::NoCommand);
    }
    let stop_signal = spec.lifecycle.as_ref().and_then(|l| l.stop_signal.clone()).or(image.stop_signal.clone());
    let user = security::user(view.spec(), spec, &image.user, &view.formatted())?;
    let mut labels = pod_labels(view);
    labels.insert(label::CONTAINER.to_string(), spec.name.clone());
    let reference = if inputs.image.repo_tags.iter().any(|tag| tag == container.image()) {
        container.image().to_string()
    } else {
        inputs.image.repo_tags.first().cloned().unwrap_or_else(|| container.image().to_string())
    };
    let image_id = inputs.image.repo_digests.first().unwrap_or(&inputs.image.id).clone();
    let mut annotations = BTreeMap::from([
        (annotation::HASH.to_string(), container.hash.clone()),
        (annotation::RESTART_COUNT.to_string(), inputs.restart_count.to_string()),
        (annotation::TERMINATION_FILE.to_string(), inputs.termination_file.to_string_lossy().into_owned()),
        (annotation::IMAGE.to_string(), reference),
        (annotation::IMAGE_ID.to_string(), image_id),
    ]);
    let policy = spec.termination_message_policy.clone().unwrap_or_else(|| "File".into());
    annotations.insert(annotation::TERMINATION_POLICY.to_string(), policy);
    if let Some(signal) = spec.lifecycle.as_ref().and_then(|l| l.stop_signal.clone()) {
        annotations.insert(annotation::STOP_SIGNAL.to_string(), signal);
    }
    let mut variables = image.env.clone();
    variables.extend(inputs.env.iter().map(|(key, value)| format!("{key}={value}")));
    let pid = if view.spec().host_pid == Some(true) {
        NamespaceMode::Node
    } else if view.spec().share_process_namespace == Some(true) {
        NamespaceMode::Shared
    } else {
        inputs.target.map_or(NamespaceMode::Pod, NamespaceMode::Target)
    };
    Ok(ContainerConfig {
        id: inputs.id,
        name: spec.name.clone(),
        layers: inputs.image.layers.iter().map(|layer| layer.id.clone()).collect(),
        args,
        env: unique(variables),
        working_dir: spec
            .working_dir
            .clone()
            .filter(|d| !d.is_empty())
            .map_or(image.working_dir.clone(), |d| expand(&d, lookup)),
        user,
        security: security::security(view.spec(), spec, inputs.seccomp_dir),
        resources: resources::container(view.spec(), spec, inputs.node_memory_bytes),
        mounts: inputs.mounts,
        devices: inputs.devices,
        pid,
        tty: spec.tty == Some(true),
        stdin: spec.stdin == Some(true),
        stdin_once: spec.stdin_once == Some(true),
        log_path: inputs.log_dir.join(&spec.name).join(format!("{}.log", inputs.restart_count)),
        stop_signal,
        labels,
        annotations,
    })
}

/// The last of each name, in the order of the first.
fn unique(variables: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(variables.len());
    let mut places: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
    for variable in variables {
        let name = variable.split('=').next().unwrap_or_default().to_string();
        match places.get(&name) {
            Some(place) => out[*place] = variable,
            None => {
                places.insert(name, out.len());
                out.push(variable);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn args(spec: serde_json::Value) -> Result<Vec<String>, ConfigError> {
        let pod = serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": [spec]}});
        let view = PodView::new(Arc::new(serde_json::from_value(pod).unwrap()));
        let image = Image {
            id: "sha256:1".into(),
            repo_digests: vec![],
            repo_tags: vec![],
            size_bytes: 0,
            config: crate::images::ImageConfig {
                entrypoint: vec!["/entry".into()],
                cmd: vec!["cmd".into()],
                ..Default::default()
            },
            layers: vec![],
        };
        let inputs = Inputs {
            id: "i".into(),
            restart_count: 0,
            image: &image,
            env: vec![("A".into(), "b".into())],
            mounts: vec![],
            devices: vec![],
            termination_file: PathBuf::new(),
            log_dir: Path::new("/l"),
            seccomp_dir: Path::new("/s"),
            node_memory_bytes: 1,
            target: None,
        };
        config(&view, &view.containers[0], inputs).map(|c| c.args)
    }

    #[test]
    fn command_and_args_as_upstream() {
        let run = |spec| args(spec).unwrap();
        assert_eq!(run(serde_json::json!({"name": "c"})), ["/entry", "cmd"]);
        assert_eq!(run(serde_json::json!({"name": "c", "args": ["x"]})), ["/entry", "x"]);
        assert_eq!(run(serde_json::json!({"name": "c", "command": ["/own", "$(A)"]})), ["/own", "b"]);
        assert_eq!(
            run(serde_json::json!({"name": "c", "command": ["/own"], "args": ["$(A)", "$$(A)"]})),
            ["/own", "b", "$(A)"]
        );
    }
}
