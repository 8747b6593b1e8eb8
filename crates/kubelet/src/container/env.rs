//! The environment of a container, from all its sources.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, EnvVarSource, Secret, Service};

use super::downward::{self, DownwardError, Surroundings};
use super::expand::expand;
use super::services;
use crate::pods::view::{ContainerView, PodView};

/// The objects a container's environment names; `None` where the API has none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    pub config_maps: HashMap<String, Option<Arc<ConfigMap>>>,
    pub secrets: HashMap<String, Option<Arc<Secret>>>,
    /// Of the pod's namespace, and `kubernetes` of the default one.
    pub services: Vec<Arc<Service>>,
}

/// Why the environment cannot be made; the text is what users read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum EnvError {
    #[error("configmap \"{0}\" not found")]
    NoConfigMap(String),
    #[error("secret \"{0}\" not found")]
    NoSecret(String),
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey { key: String, kind: &'static str, namespace: String, name: String },
    #[error(transparent)]
    Downward(#[from] DownwardError),
}

/// Names of the ConfigMaps and Secrets a container's environment needs.
pub(crate) fn references(container: &ContainerView) -> (Vec<String>, Vec<String>) {
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.spec.env_from.iter().flatten() {
        config_maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
    }
    for source in container.spec.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
        config_maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
    }
    (config_maps, secrets)
}

/// Name and value of every variable, in an order in which each stands once.
///
/// Services first, then `envFrom` in order, then `env` in order; later wins. `$(NAME)` in a value sees what stands before it.
pub(crate) fn resolve(
    view: &PodView,
    container: &ContainerView,
    objects: &Objects,
    around: &Surroundings,
) -> Result<Vec<(String, String)>, EnvError> {
    let links = service_links(view, objects);
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for from in container.spec.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            match objects.config_maps.get(&reference.name).and_then(Option::as_ref) {
                Some(map) => {
                    let data = map.data.iter().flatten();
                    values.extend(data.map(|(key, value)| (format!("{prefix}{key}"), value.clone())));
                }
                None if reference.optional == Some(true) => {}
                None => return Err(EnvError::NoConfigMap(reference.name.clone())),
            }
        }
        if let Some(reference) = &from.secret_ref {
            match objects.secrets.get(&reference.name).and_then(Option::as_ref) {
                Some(secret) => {
                    let data = secret.data.iter().flatten();
                    values.extend(data.map(|(key, value)| (format!("{prefix}{key}"), text(&value.0))));
                }
                None if reference.optional == Some(true) => {}
                None => return Err(EnvError::NoSecret(reference.name.clone())),
            }
        }
    }
    for variable in container.spec.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => {
                Some(expand(value, |name| values.get(name).or_else(|| links.get(name)).cloned()))
            }
            (_, Some(source)) => from_source(source, view, container, objects, around)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            values.insert(variable.name.clone(), value);
        }
    }
    let mut all = links;
    all.extend(values);
    Ok(all.into_iter().collect())
}

fn service_links(view: &PodView, objects: &Objects) -> BTreeMap<String, String> {
    let linked = view.spec().enable_service_links != Some(false);
    let wanted = objects.services.iter().filter(|service| {
        let (namespace, name) = (service.metadata.namespace.as_deref(), service.metadata.name.as_deref());
        let master = namespace == Some("default") && name == Some("kubernetes");
        master || (linked && namespace == Some(view.namespace.as_str()))
    });
    // A service of the pod's own namespace wins over the one of the default namespace.
    let mut wanted: Vec<_> = wanted.collect();
    wanted.sort_by_key(|service| service.metadata.namespace.as_deref() == Some(view.namespace.as_str()));
    wanted.into_iter().flat_map(|service| services::variables(service)).collect()
}

/// The value, or `None` where an optional reference has none.
fn from_source(
    source: &EnvVarSource,
    view: &PodView,
    container: &ContainerView,
    objects: &Objects,
    around: &Surroundings,
) -> Result<Option<String>, EnvError> {
    if let Some(selector) = &source.field_ref {
        return Ok(Some(downward::field(selector, view, around)?));
    }
    if let Some(selector) = &source.resource_field_ref {
        return Ok(Some(downward::resource(selector, view, Some(container.name()), around)?));
    }
    if let Some(selector) = &source.config_map_key_ref {
        let optional = selector.optional == Some(true);
        let Some(map) = objects.config_maps.get(&selector.name).and_then(Option::as_ref) else {
            return if optional { Ok(None) } else { Err(EnvError::NoConfigMap(selector.name.clone())) };
        };
        return match map.data.as_ref().and_then(|data| data.get(&selector.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(no_key(&selector.key, "ConfigMap", view, &selector.name)),
        };
    }
    if let Some(selector) = &source.secret_key_ref {
        let optional = selector.optional == Some(true);
        let Some(secret) = objects.secrets.get(&selector.name).and_then(Option::as_ref) else {
            return if optional { Ok(None) } else { Err(EnvError::NoSecret(selector.name.clone())) };
        };
        return match secret.data.as_ref().and_then(|data| data.get(&selector.key)) {
            Some(value) => Ok(Some(text(&value.0))),
            None if optional => Ok(None),
            None => Err(no_key(&selector.key, "Secret", view, &selector.name)),
        };
    }
    Ok(Some(String::new()))
}

fn no_key(key: &str, kind: &'static str, view: &PodView, name: &str) -> EnvError {
    EnvError::NoKey { key: key.to_string(), kind, namespace: view.namespace.clone(), name: name.to_string() }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resolve_pod(container: serde_json::Value, objects: &Objects) -> Result<BTreeMap<String, String>, EnvError> {
        let pod =
            json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": {"containers": [container]}});
        let view = PodView::new(Arc::new(serde_json::from_value(pod).unwrap()));
        resolve(&view, &view.containers[0], objects, &Surroundings::default()).map(|list| list.into_iter().collect())
    }

    #[test]
    fn order_expansion_and_prefixes() {
        let map: ConfigMap = serde_json::from_value(json!({"data": {"A": "from-map", "B": "b"}})).unwrap();
        let service = json!({"metadata": {"name": "db", "namespace": "ns"}, "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 1}]}});
        let objects = Objects {
            config_maps: HashMap::from([("m".to_string(), Some(Arc::new(map)))]),
            services: vec![Arc::new(serde_json::from_value(service).unwrap())],
            ..Objects::default()
        };
        let env = resolve_pod(
            json!({"name": "c", "envFrom": [{"configMapRef": {"name": "m"}}, {"prefix": "P_", "configMapRef": {"name": "m"}}],
                   "env": [{"name": "A", "value": "own-$(B)-$(LATER)-$(DB_SERVICE_HOST)"}, {"name": "LATER", "value": "x"}]}),
            &objects,
        );
        let env = env.unwrap();
        assert_eq!(env["A"], "own-b-$(LATER)-10.96.0.9");
        assert_eq!(env["P_A"], "from-map");
    }

    #[test]
    fn missing_objects() {
        let missing = Objects::default();
        let container = |optional: bool| json!({"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": optional}}}]});
        assert_eq!(resolve_pod(container(false), &missing), Err(EnvError::NoSecret("s".into())));
        assert!(resolve_pod(container(true), &missing).unwrap().is_empty());
    }
}
