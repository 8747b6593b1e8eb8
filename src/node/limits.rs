//! Other limits for a node that runs: told by the host, which has changed the machine's own.

use std::path::Path;

use kminik_base::atomic_file;
use kminik_runtime::machine;

use super::config::{CONFIG_FILE, DATA_DIR, NodeConfig};
use super::{init, replace};

/// Keeps them, limits pods below them, and has the node process started anew, which then says what the node has. To be run in
/// the node.
pub fn change(cpus: u32, memory_bytes: u64) -> std::io::Result<()> {
    let data = Path::new(DATA_DIR);
    let config = NodeConfig { cpus, memory_bytes, ..NodeConfig::load(data)? };
    let bytes = serde_json::to_vec_pretty(&config)?;
    atomic_file::write(&data.join(CONFIG_FILE), &bytes, atomic_file::SECRET).map_err(std::io::Error::other)?;
    machine::limit_pods(&init::machine_config()).map_err(std::io::Error::other)?;
    replace::restart()
}
