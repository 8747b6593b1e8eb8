//! Taking over from a process that was killed.
//!
//! What a record says is compared with what PID 1 holds. In the same life of PID 1 a container's process, streams and exit are there; in another life
//! every process of before is dead and every mount gone, so its containers have ended with an unknown code, and its sandboxes are not ready.

use std::sync::Arc;
use std::time::SystemTime;

use super::containers::Container;
use super::record::{ContainerRecord, Ended, Phase, SandboxRecord, load};
use super::sandboxes::Sandbox;
use super::{LibcontainerRuntime, io_error, store_error};
use crate::RuntimeError;
use crate::fdstore::{Holding, Inventory};
use crate::io::Ends;

/// What upstream reports of a container that it lost.
const UNKNOWN_CODE: i32 = 255;

impl LibcontainerRuntime {
    pub(super) async fn adopt(self: Arc<Self>, inventory: Inventory) -> Result<(), RuntimeError> {
        self.adopt_sandboxes().await?;
        self.adopt_containers(&inventory).await?;
        for holding in &inventory.holdings {
            let known = self.containers.lock().contains_key(&holding.key);
            if !known {
                self.fds.remove(&holding.key).map_err(store_error)?;
            }
        }
        let live = self.sandboxes.lock().values().map(|sandbox| sandbox.status()).collect::<Vec<_>>();
        self.config.network.restore(&live).await?;
        Ok(())
    }

    async fn adopt_sandboxes(&self) -> Result<(), RuntimeError> {
        let directory = self.config.state_dir.join("sandboxes");
        for entry in std::fs::read_dir(&directory).map_err(io_error("read", &directory))? {
            let path = entry.map_err(io_error("read", &directory))?.path();
            let is_record = path.extension().is_some_and(|extension| extension == "json");
            let Some(record) = is_record.then(|| load::<SandboxRecord>(&path)).flatten() else {
                // Half written, or damaged: nothing can be said of it, and what it made went with PID 1's last life.
                std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
                continue;
            };
            let (was_ready, same_life) = (record.ready, record.instance == self.instance);
            let sandbox = Arc::new(Sandbox::new(&self.config, record));
            self.sandboxes.lock().insert(sandbox.id.clone(), sandbox.clone());
            if !same_life {
                sandbox.change(|record| {
                    record.ready = false;
                    record.pause = None;
                    record.instance.clone_from(&self.instance);
                })?;
            } else if !was_ready {
                // Killed in the middle of making or ending it.
                self.take_back(&sandbox).await?;
            }
        }
        Ok(())
    }

    async fn adopt_containers(self: &Arc<Self>, inventory: &Inventory) -> Result<(), RuntimeError> {
        let directory = self.config.state_dir.join("containers");
        for entry in std::fs::read_dir(&directory).map_err(io_error("read", &directory))? {
            let path = entry.map_err(io_error("read", &directory))?.path();
            let Some(record) = load::<ContainerRecord>(&path.join("record.json")) else {
                std::fs::remove_dir_all(&path).map_err(io_error("remove", &path))?;
                continue;
            };
            let same_life = record.instance == self.instance;
            let container = Arc::new(Container::new(&self.config.state_dir, record));
            self.containers.lock().insert(container.id.clone(), container.clone());
            let held = inventory.holdings.iter().find(|holding| holding.key == container.id);
            self.adopt_container(&container, held.filter(|_| same_life), same_life).await?;
        }
        Ok(())
    }

    async fn adopt_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
        held: Option<&Holding>,
        same_life: bool,
    ) -> Result<(), RuntimeError> {
        match (container.phase(), held) {
            (Phase::Exited(_), _) => Ok(()),
            // Its root filesystem is still mounted.
            (Phase::Created, _) if same_life => Ok(()),
            // The exit, if there is one, is told by the subscription that follows.
            (Phase::Running { process, .. }, Some(_)) => self.adopt_streams(container, process),
            (Phase::Starting { process: Some(process) }, Some(_)) if self.was_let_go(container) => {
                self.adopt_streams(container, process)?;
                container.set_phase(Phase::Running { process, started_at: SystemTime::now() })
            }
            _ => self.lost(container, same_life).await,
        }
    }

    fn adopt_streams(
        &self,
        container: &Arc<Container>,
        process: crate::fdstore::ProcessId,
    ) -> Result<(), RuntimeError> {
        let Some((holding, fds)) = self.fds.get(&container.id).map_err(store_error)? else { return Ok(()) };
        let ends = Ends::from_names(&holding.names, fds);
        self.follow_io(container, &container.config(), process, ends)
    }

    /// A container in the middle of its start: its program runs if the library's socket has gone or is no longer listened to.
    fn was_let_go(&self, container: &Container) -> bool {
        let socket = self.config.run_dir.join("oci").join(&container.id).join("notify.sock");
        match std::fs::symlink_metadata(&socket) {
            Err(_) => true,
            Ok(_) => crate::helper::notify_start(&socket).is_err(),
        }
    }

    async fn lost(&self, container: &Container, same_life: bool) -> Result<(), RuntimeError> {
        if same_life && self.sandbox(&container.sandbox).is_ok() {
            self.kill_rest(container).await?;
        }
        let started_at = match container.phase() {
            Phase::Running { started_at, .. } => Some(started_at),
            _ => None,
        };
        container.set_phase(Phase::Exited(Ended {
            started_at,
            finished_at: SystemTime::now(),
            code: UNKNOWN_CODE,
            reason: "Unknown".to_owned(),
            message: Some("the machine stopped while the container was running".to_owned()),
        }))
    }
}
