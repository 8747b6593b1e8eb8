//! What the agent does while its cluster runs.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kminik_base::backoff::Backoff;
use kminik_base::component::chain;
use kminik_client::{Informers, Recorder};
use kminik_dns::{DnsServer, Forwarder, ForwarderConfig};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::notes::Notes;
use super::ports::Ports;
use super::process::NOTES;
use super::relay::{Relay, Way};
use super::schedule;
use crate::clock;
use crate::drivers::{self, Driver, Machine};
use crate::exposure::Protocol;
use crate::home::Home;
use crate::kubeconfig;
use crate::ops::cache::Cache;
use crate::ops::{client, pki, start};
use crate::printer::Printer;
use crate::profile::{Lock, Profile};
use crate::reason::{MK_INTERNAL, OrFail, Outcome};

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Why the work has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Stopped,
    /// The certificate that its connections use was issued anew.
    Renewed,
}

/// Works until `stop`, or until it must connect anew.
///
/// # Errors
/// If the profile's driver or credentials cannot be used.
pub async fn run(home: Home, profiles: watch::Receiver<Profile>, stop: CancellationToken) -> Outcome<End> {
    let stop = stop.child_token();
    let _all_ends_with_it = stop.clone().drop_guard();
    let profile = profiles.borrow().clone();
    let notes = Arc::new(Notes::new(home.clone(), home.profile(&profile.name).join(NOTES)));
    let client = client::connect(&home, &profile).await?;
    let recorder = Recorder::new(client.clone(), "kminik-agent", "", stop.clone());
    let services = Informers::new(client, stop.clone()).get::<Service>();
    let ports = Ports::new(profiles.clone(), drivers::of(&home, &profile)?, notes.clone(), recorder);
    tokio::select! {
        () = ports.follow(&services, &home) => {}
        () = serve_nodes(&home, profiles.clone(), &notes, stop.clone()) => {}
        () = schedule::follow(&home, &profile.name) => {}
        outcome = keep_nodes(&home, profiles.clone()) => outcome?,
        () = keep_certificates(&home, &profile) => return Ok(End::Renewed),
        () = stop.cancelled() => {}
    }
    Ok(End::Stopped)
}

/// Has the admin's certificate issued anew before it ends; returns when that is done.
async fn keep_certificates(home: &Home, profile: &Profile) {
    const AGAIN: Duration = Duration::from_secs(60);
    loop {
        let due = match pki::admin_validity(home, profile) {
            Some(validity) => clock::until(validity.renew_at()).await,
            None => Ok(()),
        };
        let renewed = match due.or_fail(&MK_INTERNAL, "cannot wait for a time") {
            Ok(()) => renew(home, &profile.name).await,
            Err(failure) => Err(failure),
        };
        match renewed {
            Ok(()) => return tracing::info!("the admin's certificate was issued anew"),
            Err(failure) => tracing::warn!(%failure, "the admin's certificate cannot be issued anew yet"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn renew(home: &Home, name: &str) -> Outcome<()> {
    let _lock = Lock::acquire(home, name).await?;
    let profile = Profile::load(home, name)?;
    let home = home.clone();
    // The kubeconfig may be locked by kubectl for seconds.
    let renewing = tokio::task::spawn_blocking(move || {
        pki::ensure(&home, &profile)?;
        // An entry that its user took out is not put back.
        let path = kubeconfig::path(&home);
        match kubeconfig::state(&path, &profile.name, &profile.kubeconfig_url()) {
            kubeconfig::State::Configured => pki::merge_kubeconfig(&home, &profile, &path, None, false),
            kubeconfig::State::Misconfigured => Ok(()),
        }
    });
    renewing.await.or_fail(&MK_INTERNAL, "the certificate cannot be issued anew")?
}

/// Serves on the nodes' gateway what nodes need of this machine; nothing where that is another's. Never returns.
async fn serve_nodes(home: &Home, profiles: watch::Receiver<Profile>, notes: &Notes, stop: CancellationToken) {
    let profile = profiles.borrow().clone();
    if profile.tunnel {
        return std::future::pending().await;
    }
    tokio::join!(
        forward_dns(profile.gateway, notes, stop),
        serve_loopback(profiles, notes),
        serve_cache(home, &profile, notes)
    );
}

/// Serves the host's resolvers on the nodes' gateway, for some of them listen on the host's loopback only. Never returns.
async fn forward_dns(gateway: Ipv4Addr, notes: &Notes, stop: CancellationToken) {
    let address = SocketAddr::from((gateway, 53));
    let what = "pods cannot resolve names outside of the cluster";
    let (udp, tcp) = insist(notes, what, || DnsServer::bind(address)).await;
    let config = ForwarderConfig { resolv_conf: RESOLV_CONF.into(), loopback: true };
    Arc::new(DnsServer::new(Forwarder::new(config))).serve(udp, tcp, stop).await;
    // It ends with the agent only.
    std::future::pending().await
}

/// Serves ports of the host's loopback on the nodes' gateway: mirrors and proxies that listen nowhere else. Never returns.
async fn serve_loopback(mut profiles: watch::Receiver<Profile>, notes: &Notes) {
    let mut open: BTreeMap<u16, Relay> = BTreeMap::new();
    loop {
        let wanted = profiles.borrow_and_update().host_loopback();
        open.retain(|port, _| wanted.ports.contains_key(port));
        let new: Vec<(u16, u16)> =
            wanted.ports.iter().filter(|(port, _)| !open.contains_key(port)).map(|(a, b)| (*a, *b)).collect();
        let address = wanted.address;
        let relays = new.into_iter().map(|(port, served)| async move {
            let (listen, way) = ([(address, served).into()], Way::Direct((Ipv4Addr::LOCALHOST, port).into()));
            let what = format!("the node cannot reach port {port} of this machine's loopback");
            (port, insist(notes, &what, || Relay::start(Protocol::Tcp, &listen, way.clone())).await)
        });
        let opening = async {
            open.extend(futures::future::join_all(relays).await);
            std::future::pending::<()>().await;
        };
        // What is not open by the next change is tried anew.
        let changed = tokio::select! {
            () = opening => Ok(()),
            changed = profiles.changed() => changed,
        };
        if changed.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Serves the host's cache of images on the nodes' gateway. Never returns.
async fn serve_cache(home: &Home, profile: &Profile, notes: &Notes) {
    let Some(address) = profile.cache() else { return std::future::pending().await };
    let what = "the node cannot use this machine's cache of images";
    let (store, listener) = insist(notes, what, async || {
        let cache = Cache::open_local(home).map_err(std::io::Error::other)?;
        Ok::<_, std::io::Error>((cache.store().clone(), TcpListener::bind(address.address).await?))
    })
    .await;
    store.make_room().await;
    kminik_oci::serve_cache(store, listener, &address.token).await;
    std::future::pending().await
}

/// Tries until it succeeds; meanwhile the user is told what is the matter.
async fn insist<T, E, F>(notes: &Notes, what: &str, attempt: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, E>>,
    E: std::error::Error,
{
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    let mut noted: Option<String> = None;
    loop {
        let outcome = attempt().await;
        let note = outcome.as_ref().err().map(|error| format!("{what}: {}", chain(error)));
        if noted != note {
            if let Some(old) = noted.take() {
                notes.remove(&old);
            }
            if let Some(new) = &note {
                notes.add(new);
            }
            noted = note;
        }
        match outcome {
            Ok(done) => return done,
            Err(_) => tokio::time::sleep(backoff.next_delay()).await,
        }
    }
}

/// How long a node must have run for its next end to be a new trouble.
const STEADY: Duration = Duration::from_secs(60);

/// Starts nodes again whenever one ends by itself; of those that are meant to run, as the profile says. Never returns but with
/// an error.
async fn keep_nodes(home: &Home, mut profiles: watch::Receiver<Profile>) -> Outcome<()> {
    loop {
        let profile = profiles.borrow_and_update().clone();
        let driver = drivers::of(home, &profile)?;
        // One after the other: each takes the cluster's lock.
        let turn = Mutex::new(());
        let control_plane = watch::Sender::new(true);
        let meant = profile.machines().filter(|machine| !machine.is_stopped());
        let keeping = futures::future::join_all(meant.map(|machine| {
            let (turn, control_plane) = (&turn, &control_plane);
            keep_node(home, driver.as_ref(), machine, turn, control_plane)
        }));
        tokio::select! {
            _ = keeping => {}
            // Its sender lives as long as the agent.
            Ok(()) = profiles.changed() => {}
        }
    }
}

/// Never returns. `control_plane` is whether that runs, as far as is known.
async fn keep_node(
    home: &Home,
    driver: &dyn Driver,
    machine: Machine<'_>,
    turn: &Mutex<()>,
    control_plane: &watch::Sender<bool>,
) {
    let (cluster, name) = (&machine.profile().name, machine.name());
    let printer = Printer::text(cluster);
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    let mut started = Instant::now();
    loop {
        if let Err(failure) = driver.exited(machine).await {
            tracing::warn!(%failure, "the node cannot be watched");
        }
        if !machine.is_worker() {
            control_plane.send_replace(false);
        }
        if started.elapsed() > STEADY {
            backoff.reset();
        }
        tokio::time::sleep(backoff.next_delay()).await;
        tracing::warn!(node = %name, "the node has ended, starting it again");
        if machine.is_worker() {
            // Without it a worker can do nothing, and what is asked of it holds the cluster's lock.
            let _ = control_plane.subscribe().wait_for(|runs| *runs).await;
        }
        let _turn = turn.lock().await;
        match start::revive(cluster, &name, home, &printer).await {
            Ok(()) => {
                started = Instant::now();
                if !machine.is_worker() {
                    control_plane.send_replace(true);
                }
            }
            Err(failure) => tracing::error!(%failure, "the node cannot be started again"),
        }
    }
}
