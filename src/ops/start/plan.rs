//! What will be done, decided before anything is made: all that can be refused is refused here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::Ipv4Net;
use kminik_net::hostnet::overlap;
use kminik_oci::mirrors::Presets;
use parking_lot::Mutex;

use super::{Request, datastore};
use crate::autostart;
use crate::drivers::{self, Driver, NetworkWish, Share, Taken, check_services, free_space};
use crate::engine::Endpoint;
use crate::exposure::Exposure;
use crate::home::Home;
use crate::kubeconfig;
use crate::networking::Networking;
use crate::node::config::cert_expiration_seconds;
use crate::ops::{addons, mounts, registries, units};
use crate::printer::{Printer, SPARKLE};
use crate::profile::{NetworkTurn, Profile, Registries, check_new_name};
use crate::reason::{
    Failure, GUEST_DRIVER_MISMATCH, IF_SUBNET, INET_BAD_MIRROR, INET_REPO, OrFail, Outcome, RSRC_INSUFFICIENT_STORAGE,
};
use crate::version;

/// A node with less free disk than this does not start without --force.
const LEAST_FREE_BYTES: u64 = 1 << 30;

pub struct Plan {
    pub profile: Profile,
    pub driver: Arc<dyn Driver>,
    /// As it was, if it was there.
    pub before: Option<Profile>,
    /// Made by this start, so undone if it fails.
    pub is_new: bool,
    /// Of a new cluster, until its network is made.
    pub turn: Mutex<Option<NetworkTurn>>,
}

/// Checks the request against the machine and the existing cluster.
pub async fn make(request: &Request, existing: Option<Profile>, home: &Home, printer: &Printer) -> Outcome<Plan> {
    check_version(request, printer)?;
    check_registries(request, home)?;
    check_storage(request, home, printer)?;
    datastore::check(&request.datastore)?;
    kubeconfig::check(&kubeconfig::path(home))?;
    if request.autostart == Some(true) {
        autostart::check(home, &request.profile)?;
    }
    let mut plan = match existing {
        Some(profile) => update(request, profile, home, printer).await?,
        None => create(request, home, printer).await?,
    };
    let profile = &mut plan.profile;
    if let Some(life) = request.cert_expiration {
        profile.cert_expiration_seconds = life.as_secs();
    }
    version::check_downgrade(&profile.kminik_version, &profile.name).or_else(|failure| match request.force {
        true => {
            printer.warning(&failure.to_string());
            Ok(())
        }
        false => Err(failure),
    })?;
    version::KMINIK.clone_into(&mut profile.kminik_version);
    addons::choose(home, profile, &request.addons)?;
    profile.serve_loopback(registries::loopback_ports(home, profile)?);
    if profile.cache_token.is_empty() {
        profile.cache_token = uuid::Uuid::new_v4().simple().to_string();
    }
    Ok(plan)
}

async fn create(request: &Request, home: &Home, printer: &Printer) -> Outcome<Plan> {
    check_new_name(&request.profile)?;
    let row = match &request.driver {
        Some(name) => {
            let row = drivers::find(name)?;
            if let Some(failure) = drivers::probe(row, home).await.failure() {
                if !request.force {
                    return Err(failure);
                }
                printer.warning(&failure.to_string());
            }
            printer.step(
                SPARKLE,
                "Selecting Driver",
                &format!("Using the {} driver based on user configuration", row.name),
            );
            row
        }
        None => {
            let (row, others) = drivers::choose(home).await?;
            let others =
                if others.is_empty() { String::new() } else { format!(". Other choices: {}", others.join(", ")) };
            printer.step(
                SPARKLE,
                "Selecting Driver",
                &format!("Automatically selected the {} driver{others}", row.name),
            );
            row
        }
    };
    let driver = (row.make)(home, None);
    let nodes = request.nodes.unwrap_or(1);
    let networking = Networking::new(&request.networking);
    let turn = NetworkTurn::take().await;
    // The usual one is had without a question, so it may be named without one.
    if networking.services != Networking::default().services {
        check_services(networking.services).await?;
    }
    let mut taken = Taken { subnets: vec![networking.services], ..Taken::default() };
    for other in Profile::others(home, &request.profile) {
        taken.subnets.extend(other.subnet.parse::<Ipv4Net>());
        taken.addresses.extend(other.machines().map(|machine| machine.address()));
        taken.ports.extend(ports_of(&other));
    }
    let mut exposure = Exposure { listen: request.listen_address, ..Exposure::default() };
    let wish = NetworkWish {
        api_port: request.networking.api_port,
        network: request.networking.network.clone(),
        ..request.network.clone()
    };
    let place = driver.place(&wish, &exposure, &taken).await?;
    if place.subnet.parse().is_ok_and(|subnet| overlap(networking.services, subnet)) {
        let why =
            format!("the network of Services, {}, overlaps that of the nodes, {}", networking.services, place.subnet);
        return Err(Failure::new(&IF_SUBNET, why).advise("Choose another with --service-cluster-ip-range or --subnet."));
    }
    if let Some(machine) = place.engine.as_ref().and_then(Endpoint::machine)
        && exposure.listen.is_none()
    {
        exposure.listen = Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        printer.warning(&format!(
            "The API is open to all who reach {machine}, by its certificates; --listen-address narrows that"
        ));
    }
    let mut profile = Profile {
        format: Profile::FORMAT,
        name: request.profile.clone(),
        driver: row.name.to_owned(),
        engine: place.engine,
        kubernetes_version: version::KUBERNETES.to_owned(),
        cpus: request.cpus.unwrap_or_else(default_cpus),
        memory_mib: request.memory_mib.unwrap_or_else(|| default_memory_mib(nodes)),
        base_image: request.base_image.clone(),
        registries: Registries::default(),
        datastore: request.datastore.wanted(),
        audit_log: None,
        mutating_policies: false,
        subnet: place.subnet,
        gateway: place.gateway,
        node_address: place.node_address,
        workers: Vec::new(),
        api_host: place.api_host,
        api_port: place.api_port,
        tunnel: place.tunnel,
        networking,
        exposure,
        mounts: Vec::new(),
        shown_mounts: None,
        was_up: false,
        embed_certs: request.embed_certs,
        loopback: BTreeMap::new(),
        cache_token: String::new(),
        cert_expiration_seconds: cert_expiration_seconds(),
        kminik_version: String::new(),
        addons: addons::at_first(request.install_addons)?,
        created: crate::clock::now(),
    };
    if nodes > 1 {
        let used = driver.used_addresses(&profile).await?;
        (1..nodes).try_for_each(|_| profile.add_worker(home, &used).map(drop))?;
    }
    request.registries.update(&mut profile.registries);
    request.extra_config.update(&mut profile);
    expose(request, home, &mut profile)?;
    Ok(Plan { profile, driver, before: None, is_new: true, turn: Mutex::new(turn) })
}

/// What may change on an existing cluster is changed; what may not is said.
async fn update(request: &Request, mut profile: Profile, home: &Home, printer: &Printer) -> Outcome<Plan> {
    if let Some(wanted) = &request.driver {
        let wanted = drivers::find(wanted)?;
        if wanted.name != profile.driver {
            return Err(Failure::new(
                &GUEST_DRIVER_MISMATCH,
                format!(
                    "the existing \"{}\" cluster was made with the {} driver, not {}",
                    profile.name, profile.driver, wanted.name
                ),
            )
            .advise(format!(
                "Delete it first: kminik delete -p {0}   or keep its driver: kminik start -p {0} --driver={1}",
                profile.name, profile.driver
            )));
        }
    }
    printer.step(
        SPARKLE,
        "Selecting Driver",
        &format!("Using the {} driver based on existing profile", profile.driver),
    );
    if request.base_image.is_some() && request.base_image != profile.base_image {
        printer.warning("The base image of an existing cluster cannot be changed: delete it first");
    }
    if request.nodes.is_some_and(|nodes| nodes as usize != profile.machines().count()) {
        printer.warning("The number of nodes of an existing cluster is changed by 'kminik node add' and 'kminik node delete': --nodes is ignored");
    }
    let before = profile.clone();
    // With the cluster all its nodes start.
    profile.workers.iter_mut().for_each(|worker| worker.stopped = false);
    let fixed = [
        ("--static-ip", request.network.node_address.is_some_and(|address| address != profile.node_address)),
        ("--subnet", request.network.subnet.is_some_and(|subnet| subnet.to_string() != profile.subnet)),
    ];
    let driver = drivers::of(home, &profile)?;
    let published =
        request.listen_address.is_some_and(|listen| driver.publishes() && profile.exposure.listen != Some(listen));
    let fixed = fixed.into_iter().chain([("--listen-address", published)]);
    let fixed = fixed.filter(|(_, differs)| *differs).map(|(flag, _)| flag);
    for flag in fixed.chain(profile.networking.others(&request.networking, profile.api_port)) {
        printer.warning(&format!("{flag} of an existing cluster cannot be changed: delete it first"));
    }
    if let Some(listen) = request.listen_address.filter(|_| !driver.publishes()) {
        profile.exposure.listen = Some(listen);
    }
    expose(request, home, &mut profile)?;
    // Until it is changed there.
    profile.note_shown(before.shown_mounts().to_vec());
    datastore::update(&request.datastore, &mut profile)?;
    request.extra_config.update(&mut profile);
    profile.cpus = request.cpus.unwrap_or(profile.cpus);
    profile.memory_mib = request.memory_mib.unwrap_or(profile.memory_mib);
    profile.embed_certs |= request.embed_certs;
    request.registries.update(&mut profile.registries);
    Ok(Plan { profile, driver, before: Some(before), is_new: false, turn: Mutex::new(None) })
}

/// The ports of this machine that a cluster keeps, its API's and those that it publishes.
fn ports_of(profile: &Profile) -> impl Iterator<Item = u16> {
    std::iter::once(profile.api_port).chain(profile.exposure.ports.iter().map(|port| port.host))
}

/// Takes over what was asked for of ports, names and mounts.
fn expose(request: &Request, home: &Home, profile: &mut Profile) -> Outcome<()> {
    if let Some(ports) = &request.ports {
        let others: Vec<Profile> = Profile::others(home, &profile.name).collect();
        let taken: Vec<u16> = others.iter().flat_map(ports_of).chain([profile.api_port]).collect();
        profile.exposure.publish(ports, &taken)?;
    }
    if let Some(names) = &request.api_names {
        profile.exposure.api_names.clone_from(names);
    }
    if let Some(mounts) = &request.mounts {
        let is_elsewhere = profile.engine.as_ref().and_then(Endpoint::machine).is_some();
        let found = |share: &Share| if is_elsewhere { Ok(share.clone()) } else { mounts::found(share.clone()) };
        profile.mounts = mounts.iter().map(found).collect::<Outcome<_>>()?;
    }
    Ok(())
}

/// What the API's certificate is for, beside what it is for in every cluster.
pub fn api_names(profile: &Profile) -> Vec<String> {
    let listen = profile.exposure.listen.filter(|address| !address.is_unspecified()).map(|address| address.to_string());
    let mut names = profile.exposure.api_names.clone();
    names.extend(listen);
    names.push(profile.api_host.clone());
    names.extend(profile.networking.api_name.clone());
    names.sort();
    names.dedup();
    names
}

fn check_version(request: &Request, printer: &Printer) -> Outcome<()> {
    let profile =
        if request.profile == crate::profile::DEFAULT { String::new() } else { format!(" -p {}", request.profile) };
    match version::check(&request.kubernetes_version, &format!("kminik start{profile}")) {
        Err(failure) if request.force => {
            printer.warning(&format!("{failure}; going on with {}", version::KUBERNETES));
            Ok(())
        }
        outcome => outcome,
    }
}

fn check_registries(request: &Request, home: &Home) -> Outcome<()> {
    if let Some(country) = request.registries.country.as_ref().filter(|country| !country.is_empty()) {
        let presets = Presets::parse(registries::presets_file(home)?.as_deref());
        let presets = presets.or_fail(&INET_BAD_MIRROR, "the mirrors cannot be used")?;
        if presets.of(country).is_err() {
            let why = format!("no list of mirrors is known for the country {country:?}");
            let known = presets.countries().join(", ");
            return Err(Failure::new(&INET_REPO, why).advise(format!("Countries with a list of mirrors: {known}.")));
        }
    }
    for file in request.ca_certs.iter().flatten() {
        registries::authority(file)?;
    }
    request.registries.mirrors.iter().flatten().try_for_each(|mirror| registries::check_mirror(mirror))
}

fn check_storage(request: &Request, home: &Home, printer: &Printer) -> Outcome<()> {
    let Some(free) = free_space(home.root()) else { return Ok(()) };
    if free >= LEAST_FREE_BYTES {
        return Ok(());
    }
    let failure = Failure::new(
        &RSRC_INSUFFICIENT_STORAGE,
        format!(
            "the disk of {} has {} MiB free, a cluster needs {} MiB",
            home.root().display(),
            free >> 20,
            LEAST_FREE_BYTES >> 20
        ),
    );
    if request.force {
        printer.warning(&failure.to_string());
        return Ok(());
    }
    Err(failure)
}

/// Two cores, as minikube; one where there is one.
fn default_cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(2) as u32)
}

/// A quarter of the machine for all nodes, each within 1 GiB and 6 GiB.
fn default_memory_mib(nodes: u32) -> u64 {
    let total = units::total_memory_mib();
    if total == 0 { 0 } else { (total / 4 / u64::from(nodes)).clamp(1024.min(total), 6144) / 100 * 100 }
}

/// `Debian GNU/Linux 12 (bookworm)`, or the kernel's name.
pub fn host_name() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| std::env::consts::OS.to_owned(), |name| name.trim_matches('"').to_owned())
}
