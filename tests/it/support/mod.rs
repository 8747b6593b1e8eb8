//! What the tests stand on: a cluster of their own or the shared one, images built from Debian's packages, a registry.

mod clients;
mod cluster;
mod host;
mod image;
mod registry;
mod run;

use std::sync::{Mutex, OnceLock};

pub use clients::{clients, kubectls};
pub use cluster::{Cluster, namespace};
pub use host::Host;
pub use image::{ImageTar, busybox, debian, etcd, foreign, nginx, says};
pub use registry::{LOGIN, Registry, Served};
pub use run::{Output, command, curl, eventually, kminik_binary, run};

static SHARED: OnceLock<Cluster> = OnceLock::new();
static MAKING: Mutex<()> = Mutex::new(());

/// The cluster most tests share; it has the test images.
pub fn shared() -> &'static Cluster {
    let _one_at_a_time = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    SHARED.get_or_init(|| {
        let cluster = Cluster::start("shared", &[]);
        cluster.load(&busybox());
        cluster.load(&nginx());
        cluster
    })
}

/// Deletes the shared cluster.
pub fn end() {
    if let Some(cluster) = SHARED.get() {
        cluster.delete();
    }
}
