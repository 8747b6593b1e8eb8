//! Bridges, veth pairs and what hangs on them, by netlink; every step may find its work done already.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use nlink::netlink::link::{BridgeLink, BridgePortConfig, VethLink};
use nlink::netlink::types::route::RouteScope;
use nlink::netlink::{Connection, Route};
use nlink::{Ipv4Address, Ipv4Route};

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("netlink socket cannot be opened")]
    Socket(#[source] nlink::Error),
    #[error("network namespace {} cannot be opened", path.display())]
    Namespace {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("netlink socket cannot be opened in network namespace {}", path.display())]
    NamespaceSocket {
        path: PathBuf,
        #[source]
        source: nlink::Error,
    },
    #[error("links cannot be listed")]
    List(#[source] nlink::Error),
    #[error("addresses cannot be listed")]
    Addresses(#[source] nlink::Error),
    #[error("routes cannot be listed")]
    Routes(#[source] nlink::Error),
    #[error("link {link} is missing")]
    Missing { link: String },
    #[error("link {link} exists and is a {kind}, not a {wanted}")]
    Kind { link: String, kind: String, wanted: &'static str },
    #[error("{step} failed for link {link}")]
    Step {
        step: &'static str,
        link: String,
        #[source]
        source: nlink::Error,
    },
    #[error("route to {destination} cannot be set")]
    Route {
        destination: Ipv4Net,
        #[source]
        source: nlink::Error,
    },
}

/// One end on a bridge of this namespace, the other with an address in another namespace.
#[derive(Clone, Debug)]
pub(crate) struct VethPair {
    /// Name of the end on the bridge.
    pub(crate) host_end: String,
    pub(crate) bridge: String,
    /// Name of the end in the other namespace.
    pub(crate) inner_end: String,
    pub(crate) address: Ipv4Net,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) mtu: u32,
}

/// Links, addresses and routes of one network namespace.
pub(crate) struct Links {
    route: Connection<Route>,
}

impl Links {
    /// Those of the calling thread's namespace.
    pub(crate) fn here() -> Result<Self, LinkError> {
        Connection::<Route>::new().map(|route| Self { route }).map_err(LinkError::Socket)
    }

    pub(crate) fn at(path: &Path) -> Result<Self, LinkError> {
        Connection::<Route>::new_in(path)
            .map(|route| Self { route })
            .map_err(|source| LinkError::NamespaceSocket { path: path.to_owned(), source })
    }

    pub(crate) fn route(&self) -> &Connection<Route> {
        &self.route
    }

    /// Creates the bridge unless it is there, gives it its address, and brings it up.
    pub(crate) async fn ensure_bridge(&self, name: &str, address: Ipv4Net, mtu: u32) -> Result<u32, LinkError> {
        let step = |step| move |source| LinkError::Step { step, link: name.to_owned(), source };
        if self.find(name, "bridge").await?.is_none() {
            let bridge = BridgeLink::new(name).mtu(mtu).address(mac(address.addr())).stp(false).forward_delay_ms(0);
            let created = self.route.add_link(bridge).await;
            tolerate(created, nlink::Error::is_already_exists).map_err(step("create"))?;
        }
        let index = self.index(name).await?;
        // Without this a bridge takes the smallest MTU of its ports.
        self.route.pin_bridge_mtu_by_index(index, mtu).await.map_err(step("set mtu"))?;
        let wanted = Ipv4Address::with_index(index, address.addr(), address.prefix_len());
        self.route.replace_address(wanted).await.map_err(step("set address"))?;
        self.route.set_link_up_by_index(index).await.map_err(step("set up"))?;
        Ok(index)
    }

    /// Creates the pair, puts one end on the bridge, and configures the other in the namespace at `netns`: its address as
    /// a single host, and all routes by way of the gateway, so that traffic between neighbours is routed (and translated)
    /// here and never bridged past the rules.
    pub(crate) async fn ensure_veth(&self, pair: &VethPair, netns: &Path, host_route: bool) -> Result<(), LinkError> {
        let step = |step| move |source| LinkError::Step { step, link: pair.host_end.clone(), source };
        let namespace = File::open(netns).map_err(|source| LinkError::Namespace { path: netns.to_owned(), source })?;
        let inner = Links::at(netns)?;
        if self.find(&pair.host_end, "veth").await?.is_none() || inner.find(&pair.inner_end, "veth").await?.is_none() {
            // A half of an earlier attempt, or of a namespace that is gone.
            self.delete(&pair.host_end).await?;
            let veth = VethLink::new(&pair.host_end, &pair.inner_end).mtu(pair.mtu).peer_mtu(pair.mtu);
            self.route.add_link(veth.peer_netns_fd(&namespace)).await.map_err(step("create"))?;
        }
        let host_end = self.index(&pair.host_end).await?;
        let bridge = self.index(&pair.bridge).await?;
        self.route.set_link_master_by_index(host_end, bridge).await.map_err(step("join bridge"))?;
        // Where the kernel's bridge filter is on, a packet translated to its own sender goes back out of its port.
        let port = BridgePortConfig::new().hairpin(true);
        self.route.set_bridge_port_by_index(host_end, port).await.map_err(step("set hairpin"))?;
        self.route.set_link_up_by_index(host_end).await.map_err(step("set up"))?;
        inner.configure_inner(pair, host_route).await
    }

    async fn configure_inner(&self, pair: &VethPair, host_route: bool) -> Result<(), LinkError> {
        let step = |step| move |source| LinkError::Step { step, link: pair.inner_end.clone(), source };
        self.route.set_link_up("lo").await.map_err(step("set loopback up"))?;
        let index = self.index(&pair.inner_end).await?;
        let prefix = if host_route { 32 } else { pair.address.prefix_len() };
        let address = Ipv4Address::with_index(index, pair.address.addr(), prefix);
        self.route.replace_address(address).await.map_err(step("set address"))?;
        self.route.set_link_up_by_index(index).await.map_err(step("set up"))?;
        if host_route {
            let gateway = Ipv4Route::from_addr(pair.gateway, 32).dev_index(index).scope(RouteScope::Link);
            self.route.replace_route(gateway).await.map_err(step("set gateway route"))?;
        }
        let default = Ipv4Route::default_route().gateway(pair.gateway).dev_index(index);
        self.route.replace_route(default).await.map_err(step("set default route"))
    }

    /// Deletes a link; succeeds if there is none.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), LinkError> {
        match self.route.del_link_if_exists(name).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() || error.is_no_device() => Ok(()),
            Err(source) => Err(LinkError::Step { step: "delete", link: name.to_owned(), source }),
        }
    }

    pub(crate) async fn index(&self, name: &str) -> Result<u32, LinkError> {
        match self.route.get_link_by_name(name).await.map_err(LinkError::List)? {
            Some(link) => Ok(link.ifindex()),
            None => Err(LinkError::Missing { link: name.to_owned() }),
        }
    }

    /// MTU of the link with the default route (the first by metric), 1500 without one.
    pub(crate) async fn uplink_mtu(&self) -> Result<u32, LinkError> {
        let routes = self.route.get_routes().await.map_err(LinkError::Routes)?;
        let uplink = routes
            .iter()
            .filter(|route| route.is_ipv4() && route.dst_len() == 0 && route.table_id() == MAIN_TABLE)
            .filter_map(|route| Some((route.priority().unwrap_or(0), route.oif()?)))
            .min();
        let Some((_, index)) = uplink else { return Ok(DEFAULT_MTU) };
        let link = self.route.get_link_by_index(index).await.map_err(LinkError::List)?;
        Ok(link.and_then(|link| link.mtu()).unwrap_or(DEFAULT_MTU))
    }

    /// Every IPv4 prefix this namespace has an address in or a route to, without default routes.
    pub(crate) async fn prefixes(&self) -> Result<Vec<Ipv4Net>, LinkError> {
        let routes = self.route.get_routes().await.map_err(LinkError::Routes)?;
        Ok(routes
            .iter()
            .filter(|route| route.is_ipv4() && route.dst_len() > 0)
            .filter_map(|route| match route.destination() {
                Some(std::net::IpAddr::V4(address)) => Ipv4Net::new(*address, route.dst_len()).ok(),
                _ => None,
            })
            .collect())
    }

    /// The network of one of this namespace's addresses.
    pub(crate) async fn network_of(&self, address: Ipv4Addr) -> Result<Option<Ipv4Net>, LinkError> {
        let addresses = self.route.get_addresses().await.map_err(LinkError::Addresses)?;
        let found = addresses.iter().find(|own| own.primary_address() == Some(&address.into()));
        Ok(found.and_then(|own| Ipv4Net::new(address, own.prefix_len()).ok()).map(|network| network.trunc()))
    }

    async fn find(&self, name: &str, wanted: &'static str) -> Result<Option<u32>, LinkError> {
        match self.route.get_link_by_name(name).await.map_err(LinkError::List)? {
            None => Ok(None),
            Some(link) if link.kind() == Some(wanted) => Ok(Some(link.ifindex())),
            Some(link) => {
                Err(LinkError::Kind { link: name.to_owned(), kind: link.kind().unwrap_or("device").to_owned(), wanted })
            }
        }
    }
}

/// A local link address made from an IPv4 address. A bridge without one of its own takes a port's, and when that port goes,
/// its neighbours' caches are wrong.
fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

pub(crate) const MAIN_TABLE: u32 = 254;
const DEFAULT_MTU: u32 = 1500;

/// Takes a failure that means "already so" for success.
pub(crate) fn tolerate(outcome: nlink::Result<()>, expected: fn(&nlink::Error) -> bool) -> nlink::Result<()> {
    match outcome {
        Err(error) if expected(&error) => Ok(()),
        outcome => outcome,
    }
}
