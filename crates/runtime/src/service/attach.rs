//! Joining the streams of a container's own process.

use super::LibcontainerRuntime;
use super::containers::Container;
use crate::{ContainerState, RuntimeError, Streams};

impl LibcontainerRuntime {
    pub(super) async fn attach_streams(&self, container: &Container, streams: Streams) -> Result<(), RuntimeError> {
        let io = container.io.lock().clone();
        let Some(io) = io else {
            let state = container.status().state;
            return Err(RuntimeError::WrongState { id: container.id.clone(), state, wanted: ContainerState::Running });
        };
        io.attach(streams).await;
        Ok(())
    }
}
