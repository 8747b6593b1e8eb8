//! What every worker of the node shares.

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kminik_client::{Informer, Recorder};
use kminik_runtime::Runtime;

use crate::config::{Capacity, KubeletConfig};
use crate::images::Puller;
use crate::objects::Objects;
use crate::pods::table::Table;
use crate::pods::view::PodView;
use crate::volumes::Volumes;

/// Made when the kubelet starts to run.
pub(crate) struct NodeContext {
    pub config: Arc<KubeletConfig>,
    pub runtime: Arc<dyn Runtime>,
    pub puller: Puller,
    pub client: kube::Client,
    pub recorder: Recorder,
    pub objects: Objects,
    pub volumes: Volumes,
    pub services: Informer<Service>,
    pub table: Arc<Table>,
    pub capacity: Capacity,
}

impl NodeContext {
    /// Addresses of the node as text, primary first.
    pub(crate) fn host_ips(&self) -> Vec<String> {
        self.config.node_ips.iter().map(ToString::to_string).collect()
    }

    /// Where the logs of a pod's containers are.
    pub(crate) fn log_dir(&self, view: &PodView) -> PathBuf {
        self.config.log_dir.join(format!("{}_{}_{}", view.namespace, view.name, view.uid))
    }
}
