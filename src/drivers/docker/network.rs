//! The network that a cluster's nodes are in: one of the cluster's own, or one that its user names. That is made if it is not
//! there, and goes with the last cluster in it if kminik has made it.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest, NetworkInspect};
use bollard::query_parameters::ListNetworksOptionsBuilder;
use ipnet::Ipv4Net;

use super::{HOME_LABEL, LABEL, object_name};
use crate::drivers::network::{self as wanted, Site};
use crate::drivers::{Machine, NetworkWish, Taken};
use crate::engine::found;
use crate::profile::Profile;
use crate::reason::{Failure, IF_NETWORK, IF_SUBNET, MK_USAGE, OrFail, Outcome};

const DRIVER: &str = "bridge";
const CANNOT_LIST: &str = "cannot list the engine's networks";

pub fn name_of(profile: &Profile) -> String {
    profile.networking.network.clone().unwrap_or_else(|| object_name(&profile.name))
}

/// Chooses; nothing is made.
pub async fn choose(docker: &Docker, wish: &NetworkWish, taken: &Taken) -> Outcome<Site> {
    if let Some(name) = &wish.network
        && let Some(network) = inspect(docker, name).await?
    {
        return within(name, &network, wish, taken);
    }
    let networks = docker.list_networks(Some(ListNetworksOptionsBuilder::new().build())).await;
    let networks = networks.or_fail(&IF_NETWORK, CANNOT_LIST)?;
    let theirs = networks.into_iter().filter_map(|network| network.ipam?.config).flatten();
    let theirs = theirs.filter_map(|config| config.subnet?.parse().ok());
    let taken: Vec<Ipv4Net> = theirs.chain(taken.subnets.iter().copied()).collect();
    wanted::choose(wish, &taken).await
}

/// A place in a network that is there.
fn within(name: &str, network: &NetworkInspect, wish: &NetworkWish, taken: &Taken) -> Outcome<Site> {
    let refuse = |why: String| {
        Failure::new(&MK_USAGE, format!("--network={name} cannot be the nodes': {why}"))
            .advise("Let kminik make one by a name that is not taken, or leave --network away.")
    };
    if network.driver.as_deref() != Some(DRIVER) {
        return Err(refuse(format!("its driver is {}", network.driver.as_deref().unwrap_or("not known"))));
    }
    let (subnet, gateway) = pool(network).ok_or_else(|| refuse("it has no addresses of IPv4".to_owned()))?;
    if wish.subnet.is_some_and(|wanted| wanted != subnet) {
        return Err(refuse(format!("its subnet is {subnet}")));
    }
    let used: Vec<Ipv4Addr> = used(network).chain(taken.addresses.iter().copied()).collect();
    let node_address = match wish.node_address {
        Some(address) => {
            wanted::check_address(subnet, address, gateway)?;
            if used.contains(&address) {
                return Err(refuse(format!("the address {address} is another's")));
            }
            address
        }
        None => subnet
            .hosts()
            .find(|address| *address != gateway && !used.contains(address))
            .ok_or_else(|| refuse("it has no address left".to_owned()))?,
    };
    Ok(Site { subnet, gateway, node_address })
}

/// Addresses that containers have in it.
fn used(network: &NetworkInspect) -> impl Iterator<Item = Ipv4Addr> {
    let containers = network.containers.iter().flat_map(HashMap::values);
    containers.filter_map(|container| container.ipv4_address.as_ref()?.split('/').next()?.parse().ok())
}

/// Addresses that containers have in a cluster's network, if its user has named it: else nobody else is in it.
pub async fn used_by_others(docker: &Docker, profile: &Profile) -> Outcome<Vec<Ipv4Addr>> {
    let Some(name) = &profile.networking.network else { return Ok(Vec::new()) };
    Ok(inspect(docker, name).await?.iter().flat_map(used).collect())
}

/// Where it is, and the host's address in it.
fn pool(network: &NetworkInspect) -> Option<(Ipv4Net, Ipv4Addr)> {
    network.ipam.iter().flat_map(|ipam| ipam.config.iter().flatten()).find_map(|config| {
        let subnet: Ipv4Net = config.subnet.as_ref()?.parse().ok()?;
        let gateway = config.gateway.as_ref().and_then(|gateway| gateway.split('/').next()?.parse().ok());
        Some((subnet, gateway.or_else(|| subnet.hosts().next())?))
    })
}

async fn inspect(docker: &Docker, name: &str) -> Outcome<Option<NetworkInspect>> {
    found(docker.inspect_network(name, None).await).or_fail(&IF_NETWORK, "cannot inspect the network")
}

/// Makes the cluster's network unless it is there.
///
/// # Errors
/// `IF_SUBNET` if another has taken its addresses.
pub async fn ensure(docker: &Docker, profile: &Profile, labels: HashMap<String, String>) -> Outcome<()> {
    let name = name_of(profile);
    if let Some(network) = inspect(docker, &name).await? {
        let subnet = pool(&network).map(|(subnet, _)| subnet.to_string()).unwrap_or_default();
        if profile.networking.network.is_none() || subnet == profile.subnet {
            return Ok(());
        }
        let why = format!("the network {name} is {subnet} now, the cluster is in {}", profile.subnet);
        return Err(
            Failure::new(&IF_SUBNET, why).advise("Make it as it was, or delete the cluster and start it again.")
        );
    }
    let pool = IpamConfig {
        subnet: Some(profile.subnet.clone()),
        gateway: Some(profile.gateway.to_string()),
        ..Default::default()
    };
    let request = NetworkCreateRequest {
        name,
        driver: Some(DRIVER.into()),
        ipam: Some(Ipam { config: Some(vec![pool]), ..Default::default() }),
        options: Some(HashMap::from([("com.docker.network.bridge.enable_ip_masquerade".into(), "true".into())])),
        labels: Some(labels),
        ..Default::default()
    };
    match docker.create_network(request).await {
        Ok(_) => Ok(()),
        Err(error) if error.to_string().contains("overlap") => Err(Failure::because(
            &IF_SUBNET,
            format_args!("the cluster's network {} is in use by another of the engine's", profile.subnet),
            &error,
        )
        .advise(
            "Remove the other network ('docker network ls' lists them), or delete the cluster and start it again.",
        )),
        Err(error) => Err(Failure::because(&IF_NETWORK, "cannot make the cluster's network", &error)),
    }
}

/// Removes networks that this home's clusters have had made by a name that their users gave, but for those that are `wanted` by other
/// clusters. One that the engine does not let go (others' containers are in it) stays.
pub async fn remove_unused(docker: &Docker, home: &str, wanted: &[String]) -> Outcome<()> {
    let ours = format!("{HOME_LABEL}={home}");
    let filters = HashMap::from([("label", vec![ours.as_str()])]);
    let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
    let networks = docker.list_networks(Some(options)).await.or_fail(&IF_NETWORK, CANNOT_LIST)?;
    for network in networks {
        let Some(name) = network.name else { continue };
        let of_one = network.labels.and_then(|labels| Some(object_name(labels.get(LABEL)?)));
        if of_one.as_ref() == Some(&name) || wanted.contains(&name) {
            continue;
        }
        if let Err(error) = docker.remove_network(&name).await {
            tracing::debug!(%error, name, "a network stays");
        }
    }
    Ok(())
}

/// What the engine means that does not give a machine its address.
pub fn refused(machine: Machine<'_>, error: &Error) -> Option<Failure> {
    let (text, address) = (error.to_string(), machine.address());
    let name = name_of(machine.profile());
    if text.contains("user configured subnets") {
        let why = format!("the engine gives no fixed addresses in the network {name}");
        return Some(
            Failure::because(&IF_NETWORK, why, error)
                .advise(format!("Make it with a subnet: docker network create --subnet=192.168.200.0/24 {name}")),
        );
    }
    // A port that is taken is "address already in use".
    text.contains("Address already in use").then(|| {
        let why = format!("the node's address {address} is another container's in the network {name}");
        Failure::because(&IF_NETWORK, why, error).advise(format!("See which: docker network inspect {name}"))
    })
}
