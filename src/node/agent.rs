use std::path::Path; use super::{NodeError, config::NodeConfig, control::ControlPlane, identity::Identities}; use kminik_base::component::Supervisor; use tokio::runtime::Handle;
pub async fn start(_d: &Path, _c: &NodeConfig, _i: &Identities, _p: &ControlPlane, _s: &Supervisor, _t: &Handle) -> Result<(), NodeError> { Ok(()) }
