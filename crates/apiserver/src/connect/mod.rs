//! Subresources that take the connection over: into pods through their kubelet, and proxies to pods, services, nodes.
//!
//! | subresource | goes to |
//! |---|---|
//! | `pods/exec`, `pods/attach`, `pods/portforward`, `pods/log` | the kubelet of the pod's node, as this server's own client |
//! | `nodes/proxy` | the node's kubelet, or another port of it |
//! | `pods/proxy`, `services/proxy` | the pod's address, or one of a ready endpoint of the service |
//!
//! Nothing of a stream is understood here: an upgraded connection is two pipes, whatever the protocol.
//!
//! **Invariant:** the client's credentials never leave this server.
//! **Invariant:** a proxy never connects to this machine's loopback, link-local or unspecified addresses.

pub(crate) mod forward;
mod html;
mod kubelet;
mod pods;
mod proxy;

pub(crate) use pods::{Attach, Exec, Log, PortForward};
pub(crate) use proxy::{NodeProxy, PodProxy, ServiceProxy};
