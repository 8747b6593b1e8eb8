//! Amounts of resources: what pods ask for and nodes have.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use kminik_meta::Quantity;

pub(crate) const CPU: &str = "cpu";
pub(crate) const MEMORY: &str = "memory";
pub(crate) const PODS: &str = "pods";

/// What a container without requests counts as in scores, so that such pods spread: 100 milli-CPU and 200 MiB.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY_BYTES: i64 = 200 << 20;

/// Amounts by resource name: CPU in thousandths, all else in whole units (bytes, pieces). Absent is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(BTreeMap<String, i64>);

impl Resources {
    /// Reads the API's form; amounts that cannot be read count as zero (the API refuses them).
    pub fn read(amounts: Option<&BTreeMap<String, ApiQuantity>>) -> Self {
        let mut resources = Self::default();
        for (name, amount) in amounts.into_iter().flatten() {
            if let Ok(quantity) = amount.0.parse::<Quantity>() {
                resources.set(name, if name == CPU { quantity.milli_value() } else { quantity.value() });
            }
        }
        resources
    }

    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub fn set(&mut self, name: &str, amount: i64) {
        self.0.insert(name.to_string(), amount);
    }

    pub fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            *self.0.entry(name.clone()).or_insert(0) += amount;
        }
    }

    pub fn subtract(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            *self.0.entry(name.clone()).or_insert(0) -= amount;
        }
    }

    /// Each amount at least that of `other`.
    pub fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let own = self.0.entry(name.clone()).or_insert(0);
            *own = (*own).max(*amount);
        }
    }

    /// The resources of which there is more than nothing.
    pub fn positive(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().filter(|(_, amount)| **amount > 0).map(|(name, amount)| (name.as_str(), *amount))
    }
}

/// What a pod asks for: the larger of all containers together and each init container beside the sidecars started before it, plus the
/// pod's overhead. Requests of the pod as a whole replace the sum where they are given.
pub(crate) fn requests(spec: &PodSpec) -> Resources {
    total(spec, |container| requested(container.resources.as_ref()))
}

/// As [`requests`], with the defaults for containers that ask for no CPU or memory.
pub(crate) fn nonzero_requests(spec: &PodSpec) -> Resources {
    total(spec, |container| {
        let mut resources = requested(container.resources.as_ref());
        for (name, default) in [(CPU, DEFAULT_MILLI_CPU), (MEMORY, DEFAULT_MEMORY_BYTES)] {
            if !resources.0.contains_key(name) {
                resources.set(name, default);
            }
        }
        resources
    })
}

fn total(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of(container));
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let own = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&own);
            sidecars.add(&own);
            starting.raise_to(&sidecars);
        } else {
            let mut beside = sidecars.clone();
            beside.add(&own);
            starting.raise_to(&beside);
        }
    }
    running.raise_to(&starting);
    for (name, amount) in requested(spec.resources.as_ref()).0 {
        running.0.insert(name, amount);
    }
    running.add(&Resources::read(spec.overhead.as_ref()));
    running
}

/// Requests of one container; a limit without a request counts as one.
fn requested(requirements: Option<&ResourceRequirements>) -> Resources {
    let Some(requirements) = requirements else { return Resources::default() };
    let mut resources = Resources::read(requirements.limits.as_ref());
    for (name, amount) in Resources::read(requirements.requests.as_ref()).0 {
        resources.0.insert(name, amount);
    }
    resources
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn init_containers_and_sidecars_count_as_they_run() {
        let spec: PodSpec = serde_json::from_value(json!({
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "100m"}}}, {"name": "b", "resources": {"requests": {"cpu": "200m"}}}],
            "initContainers": [
                {"name": "early", "resources": {"requests": {"cpu": "350m"}}},
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}},
                {"name": "late", "resources": {"requests": {"cpu": "400m", "memory": "1Gi"}}},
            ],
            "overhead": {"cpu": "10m"},
        }))
        .unwrap();
        let requests = requests(&spec);
        // late runs beside side: 450m is more than a + b + side = 350m.
        assert_eq!(requests.get(CPU), 460);
        assert_eq!(requests.get(MEMORY), 1 << 30);
    }

    #[test]
    fn scores_assume_a_minimum() {
        let spec: PodSpec = serde_json::from_value(json!({"containers": [{"name": "a"}, {"name": "b"}]})).unwrap();
        assert_eq!(requests(&spec).get(CPU), 0);
        assert_eq!(nonzero_requests(&spec).get(CPU), 200);
        assert_eq!(nonzero_requests(&spec).get(MEMORY), 400 << 20);
    }
}
