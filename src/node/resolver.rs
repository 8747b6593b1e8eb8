//! Names for a node whose host serves it none: what the container engine gave it to resolve with, which may listen on the
//! node's loopback only, served at the node's own address, where pods reach it too.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use kminik_base::component::{BoxError, Component, Ready};
use kminik_dns::{DnsServer, Forwarder, ForwarderConfig};
use tokio_util::sync::CancellationToken;

/// What the engine wrote, in the node's data: it does not write it again where it finds another.
const GIVEN: &str = "resolv.conf";

pub(super) struct Resolver {
    given: PathBuf,
    address: SocketAddr,
}

impl Resolver {
    /// Has everybody ask at this address; what stood in the file before is what will be asked.
    pub(super) fn take_over(file: &Path, address: Ipv4Addr, data: &Path) -> io::Result<Arc<Self>> {
        let (given, own) = (data.join(GIVEN), format!("nameserver {address}\n"));
        let text = fs::read_to_string(file)?;
        // A node process before this one has done it.
        if text != own {
            fs::write(&given, text)?;
            fs::write(file, own)?;
        }
        Ok(Arc::new(Self { given, address: (address, 53).into() }))
    }
}

impl Component for Resolver {
    fn name(&self) -> &'static str {
        "resolver"
    }

    fn run(self: Arc<Self>, stop: CancellationToken, ready: Ready) -> BoxFuture<'static, Result<(), BoxError>> {
        Box::pin(async move {
            let (udp, tcp) = DnsServer::bind(self.address).await?;
            ready.set_ready();
            let config = ForwarderConfig { resolv_conf: self.given.clone(), loopback: true };
            Arc::new(DnsServer::new(Forwarder::new(config))).serve(udp, tcp, stop).await;
            Ok(())
        })
    }
}
