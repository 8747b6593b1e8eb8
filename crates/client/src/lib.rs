//! What every part that talks to the API is built from: shared informers, keyed work queues, events, leadership.
//!
//! Owns: the watches of a process (one a kind and selector) and the objects they keep in memory.
//!
//! **Invariant:** nothing here knows whether the API server is in the same process: all requests go through [`kube::Client`].
//! **Invariant:** no kind is special here: informers, queues and writes are generic over [`kube::Resource`].
//! **Invariant:** nothing here polls: informers wait on watches, queues on additions and the earliest timer.
//!
//! The shape of a control loop:
//!
//! ```no_run
//! # use std::time::Duration;
//! # use kminik_client::{Informers, Next, ObjectKey, Worker, WorkQueue};
//! # use k8s_openapi::api::core::v1::Pod;
//! # async fn demo(client: kube::Client, stop: tokio_util::sync::CancellationToken) {
//! let informers = Informers::new(client, stop.clone());
//! let pods = informers.get::<Pod>();
//! let queue = WorkQueue::new();
//! let _subscription = pods.enqueue(&queue);
//! pods.wait_synced().await;
//! Worker::new("example", queue, 4).run(&stop, |key: ObjectKey| {
//!     let pods = pods.clone();
//!     async move {
//!         let Some(_pod) = pods.get(&key) else { return Ok(Next::Done) };
//!         Ok::<_, kube::Error>(Next::After(Duration::from_secs(10)))
//!     }
//! }).await;
//! # }
//! ```

pub mod claims;
mod correlate;
mod decode;
mod error;
mod informer;
mod informers;
mod key;
mod leader;
mod list_watch;
pub mod placement;
mod queue;
mod recorder;
mod worker;
mod writes;

pub use decode::typed;
pub use error::{
    describe, is_already_exists, is_conflict, is_forbidden, is_gone, is_invalid, is_not_found, is_terminating,
    stems_from_conflict,
};
pub use informer::{Change, Informer, Subscription};
pub use informers::{Informers, Selection, until};
pub use key::{ObjectKey, revision_of};
pub use leader::Leadership;
pub use queue::WorkQueue;
pub use recorder::{EventType, Recorder, reference};
pub use worker::{Next, Worker};
pub use writes::{Unsettled, Writes};
