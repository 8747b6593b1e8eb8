//! Prefers nodes that hold the pod's images, the more the larger they are and the more nodes hold them.

use crate::info::NodeInfo;
use crate::plugin::{Cycle, MAX_SCORE};

const MIN_BYTES: i64 = 23 << 20;
const MAX_BYTES_PER_CONTAINER: i64 = 1000 << 20;

pub(crate) fn score(cycle: &Cycle, node: &NodeInfo) -> i64 {
    let Some(spec) = cycle.pod.spec() else { return 0 };
    let nodes = i64::try_from(cycle.snapshot.nodes.len()).unwrap_or(i64::MAX).max(1);
    let containers: Vec<_> = spec.init_containers.iter().flatten().chain(&spec.containers).collect();
    let mut sum = 0i64;
    for image in containers.iter().filter_map(|container| container.image.as_deref()) {
        let name = normalized(image);
        let Some(size) = size_on(node, &name) else { continue };
        let holders = cycle.snapshot.nodes.values().filter(|other| size_on(other, &name).is_some()).count();
        let holders = i64::try_from(holders).unwrap_or(i64::MAX);
        sum = sum.saturating_add(size.saturating_mul(holders) / nodes);
    }
    let max =
        MAX_BYTES_PER_CONTAINER.saturating_mul(i64::try_from(containers.len()).unwrap_or(i64::MAX)).max(MIN_BYTES + 1);
    (sum.clamp(MIN_BYTES, max) - MIN_BYTES).saturating_mul(MAX_SCORE) / (max - MIN_BYTES)
}

fn size_on(node: &NodeInfo, name: &str) -> Option<i64> {
    let images = node.node.status.as_ref()?.images.as_ref()?;
    let image = images.iter().find(|image| image.names.iter().flatten().any(|own| own == name))?;
    image.size_bytes
}

/// A name without tag or digest means the tag `latest`.
fn normalized(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') || name.contains('@') { name.to_string() } else { format!("{name}:latest") }
}
