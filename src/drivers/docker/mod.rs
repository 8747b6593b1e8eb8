//! Nodes as containers of a Docker engine, through its API; the docker binary is never called.
//!
//! A machine is a container and a volume (the node's /var), named `kminik-<machine>`; a cluster has a network, `kminik-<profile>`.
//! All are labelled, so that `delete` finds them whatever else is lost. The image is named by the digest of what is in it and loaded only once.

mod exec;
mod image;
mod network;
mod spec;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::models::{ContainerStateStatusEnum, ContainerUpdateBody, SystemInfo, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    LogsOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder, StopContainerOptionsBuilder,
    UploadToContainerOptionsBuilder,
};
use futures::TryStreamExt;
use kminik_runtime::node::bind_into;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use self::spec::Rights;
use super::output::Asked;
use super::{
    Driver, Health, Machine, MachineState, NetworkWish, NodeCommand, NodeFile, NodeOutput, OutputBounds, Placement,
    Share, Taken, Userland,
};
use crate::engine::{Duplex, Endpoint, Engine, found};
use crate::exposure::Exposure;
use crate::home::Home;
use crate::ports;
use crate::profile::Profile;
use crate::reason::{
    DRV_CREATE, DRV_NOT_HEALTHY, Failure, GUEST_DELETION, GUEST_MOUNT, GUEST_START, GUEST_STOP_TIMEOUT,
    HOST_PORT_IN_USE, OrFail, Outcome, PROVIDER_DOCKER_NOT_FOUND,
};

/// On everything made; its value is the profile's name.
const LABEL: &str = "dev.kminik.profile";
/// On everything made; its value is the home directory whose cluster it is: several users share an engine.
const HOME_LABEL: &str = "dev.kminik.home";
/// How often a container is made whose image is taken away meanwhile.
const ATTEMPTS: usize = 5;
const CONSOLE_LIMIT_BYTES: usize = 4 << 20;

struct DockerDriver {
    home: Home,
    /// Of the cluster's engine, if it is known.
    endpoint: Option<Endpoint>,
    /// Connected to when it is first needed.
    engine: OnceCell<(Engine, String)>,
}

/// The built-in node image as it can be published, in docker-save's format; of this binary's version.
pub fn write_node_image(out: impl std::io::Write) -> std::io::Result<()> {
    image::write_archive(out, &format!("{}:v{}", image::REPOSITORY, crate::version::KMINIK), &Userland::BuiltIn)
}

pub fn make(home: &Home, profile: Option<&Profile>) -> Arc<dyn Driver> {
    let endpoint = profile.and_then(|profile| profile.engine.clone());
    Arc::new(DockerDriver { home: home.clone(), endpoint, engine: OnceCell::new() })
}

/// Of a machine's container and volume, or of a cluster's network.
fn object_name(name: &str) -> String {
    format!("kminik-{name}")
}

fn name_of(machine: Machine<'_>) -> String {
    object_name(&machine.name())
}

#[async_trait]
impl Driver for DockerDriver {
    async fn probe(&self) -> Health {
        match self.engine().await {
            Ok((_, about)) => Health::good(about.as_str()),
            Err(failure) => {
                let absent = failure.reason == &PROVIDER_DOCKER_NOT_FOUND;
                let health = Health::from(failure);
                if absent { health.absent() } else { health }
            }
        }
    }

    async fn place(&self, wish: &NetworkWish, exposure: &Exposure, taken: &Taken) -> Outcome<Placement> {
        let Engine { docker, endpoint } = &self.engine().await?.0;
        let site = network::choose(docker, wish, taken).await?;
        let machine = endpoint.machine();
        let (api_host, api_port) = match &machine {
            Some(machine) => {
                let port = match wish.api_port {
                    Some(port) => port,
                    None => free_port_of(machine, &taken.ports).await,
                };
                (machine.clone(), port)
            }
            None => {
                let address = exposure.address();
                let host = if address.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address };
                (host.to_string(), free_port(address, wish.api_port, &taken.ports)?)
            }
        };
        let info = docker.info().await.or_fail(&DRV_NOT_HEALTHY, "the engine does not say what it is")?;
        Ok(Placement {
            subnet: site.subnet.to_string(),
            gateway: site.gateway,
            node_address: site.node_address,
            api_host,
            api_port,
            tunnel: machine.is_some() || is_apart(&info),
            engine: Some(endpoint.clone()),
        })
    }

    async fn used_addresses(&self, profile: &Profile) -> Outcome<Vec<Ipv4Addr>> {
        network::used_by_others(self.docker().await?, profile).await
    }

    async fn create(&self, machine: Machine<'_>, userland: &Userland, files: &[NodeFile]) -> Outcome<()> {
        let docker = self.docker().await?;
        let (profile, name) = (machine.profile(), name_of(machine));
        network::ensure(docker, profile, self.labels(&profile.name)).await?;
        let volume = VolumeCreateRequest {
            name: Some(name.clone()),
            labels: Some(self.labels(&profile.name)),
            ..Default::default()
        };
        docker.create_volume(volume).await.or_fail(&DRV_CREATE, "cannot make the node's volume")?;
        remove_container(docker, &name).await?;
        let rights = self.first_rights().await?;
        for attempt in 1.. {
            let image = image::ensure(docker, userland).await?;
            let body = spec::container(machine, &image, self.labels(&profile.name), rights);
            let options = CreateContainerOptionsBuilder::new().name(&name).build();
            match found(docker.create_container(Some(options), body).await) {
                // The deletion of another cluster found nobody using the image.
                Ok(None) if attempt < ATTEMPTS => {}
                Ok(None) => return Err(Failure::new(&DRV_CREATE, "the node's image is gone from the engine")),
                made => {
                    made.or_fail(&DRV_CREATE, "cannot make the node's container")?;
                    break;
                }
            }
        }
        upload(docker, &name, files).await
    }

    async fn start(&self, machine: Machine<'_>) -> Outcome<()> {
        let docker = self.docker().await?;
        let name = name_of(machine);
        let mut rights = self.first_rights().await?;
        let error = loop {
            let Err(error) = docker.start_container(&name, None).await else { return Ok(()) };
            let Some(instead) = rights.instead(&error.to_string()) else { break error };
            rights = instead;
            self.make_again(docker, machine, rights).await?;
        };
        let text = error.to_string();
        if let Some(failure) = network::refused(machine, &error) {
            return Err(failure);
        }
        if text.contains("port is already allocated") || text.contains("address already in use") {
            return Err(Failure::because(
                &HOST_PORT_IN_USE,
                format_args!("port {} of the API, or a published one, is taken", machine.profile().api_port),
                &error,
            ));
        }
        Err(Failure::because(&GUEST_START, "cannot start the node's container", &error))
    }

    async fn stop(&self, machine: Machine<'_>, bound: Duration) -> Outcome<()> {
        let seconds = i32::try_from(bound.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        found(self.docker().await?.stop_container(&name_of(machine), Some(options)).await)
            .or_fail(&GUEST_STOP_TIMEOUT, "cannot stop the node's container")?;
        Ok(())
    }

    async fn remove(&self, machine: Machine<'_>) -> Outcome<()> {
        remove_machine(self.docker().await?, &name_of(machine)).await
    }

    async fn delete(&self, cluster: &str) -> Outcome<()> {
        let docker = self.docker().await?;
        let name = object_name(cluster);
        let mut machines = self.objects(docker, cluster).await?;
        machines.insert(name.clone());
        for machine in &machines {
            remove_machine(docker, machine).await?;
        }
        found(docker.remove_network(&name).await).or_fail(&GUEST_DELETION, "cannot remove the cluster's network")?;
        network::remove_unused(docker, &self.home_label(), &self.networks_of_others(cluster)).await?;
        image::remove_unused(docker).await
    }

    async fn resize(&self, machine: Machine<'_>) -> Outcome<()> {
        let limits = spec::limits(machine);
        let docker = self.docker().await?;
        let now = docker.inspect_container(&name_of(machine), None).await;
        let now = now.or_fail(&DRV_CREATE, "cannot inspect the node's container")?.host_config.unwrap_or_default();
        let loses = |has: Option<i64>, gets: Option<i64>| has.is_some_and(|limit| limit > 0) && gets.is_none();
        if loses(now.memory, limits.memory) || loses(now.nano_cpus, limits.nano_cpus) {
            return Err(Failure::new(&DRV_CREATE, "the engine cannot take a limit away from a container that runs")
                .advise("Stop the cluster and start it again."));
        }
        // What is left out stays as it is.
        let body = ContainerUpdateBody {
            memory: limits.memory,
            memory_swap: limits.memory,
            nano_cpus: limits.nano_cpus,
            ..Default::default()
        };
        let updated = docker.update_container(&name_of(machine), body).await;
        updated.or_fail(&DRV_CREATE, "the engine does not change what the node may use")
    }

    fn publishes(&self) -> bool {
        true
    }

    async fn dial(&self, machine: Machine<'_>, address: SocketAddr) -> Outcome<Box<dyn Duplex>> {
        exec::dial(self.docker().await?, &name_of(machine), address).await
    }

    async fn state(&self, machine: Machine<'_>) -> Outcome<MachineState> {
        let (docker, name) = (self.docker().await?, name_of(machine));
        let container = found(docker.inspect_container(&name, None).await)
            .or_fail(&DRV_NOT_HEALTHY, "cannot inspect the node's container")?;
        match container.and_then(|c| c.state?.status) {
            Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::PAUSED) => Ok(MachineState::Running),
            Some(_) => Ok(MachineState::Stopped),
            None => {
                // The container is replaceable, the volume is the cluster.
                let volume = found(docker.inspect_volume(&name).await)
                    .or_fail(&DRV_NOT_HEALTHY, "cannot inspect the node's volume")?;
                Ok(if volume.is_some() { MachineState::Stopped } else { MachineState::Nonexistent })
            }
        }
    }

    async fn share(&self, machine: Machine<'_>, share: &Share) -> Outcome<()> {
        let name = name_of(machine);
        let Some(pid) = self.process(&name).await? else {
            return Err(Failure::new(&GUEST_MOUNT, "a container of the Docker engine gets further directories while it runs only from root on the engine's own machine")
                .advise("Copy files with 'kminik cp', or name it with 'kminik start --mount-string' while the cluster is stopped."));
        };
        let outcome = bind_into(pid, &share.clone().into()).await;
        outcome.or_fail(&GUEST_MOUNT, "cannot show it in the node")
    }

    async fn exec(&self, machine: Machine<'_>, command: &NodeCommand) -> Outcome<i32> {
        exec::attached(self.docker().await?, &name_of(machine), command).await
    }

    async fn output(&self, machine: Machine<'_>, args: &[&str], bounds: OutputBounds) -> Outcome<NodeOutput> {
        exec::collected(self.docker().await?, &name_of(machine), Asked { machine, args, bounds }).await
    }

    async fn console(&self, machine: Machine<'_>) -> Outcome<Vec<u8>> {
        let docker = self.docker().await?;
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail("1000").build();
        let mut text = Vec::new();
        let mut stream = docker.logs(&name_of(machine), Some(options));
        while let Ok(Some(chunk)) = stream.try_next().await {
            text.extend_from_slice(&chunk.into_bytes());
            if text.len() > CONSOLE_LIMIT_BYTES {
                break;
            }
        }
        Ok(text)
    }

    async fn clusters(&self) -> Outcome<Vec<String>> {
        let ours = format!("{HOME_LABEL}={}", self.home_label());
        let filters = HashMap::from([("label", vec![LABEL, ours.as_str()])]);
        let docker = self.docker().await?;
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let containers = docker
            .list_containers(Some(options))
            .await
            .or_fail(&DRV_NOT_HEALTHY, "cannot list the engine's containers")?;
        // Of one that others have removed the data may be there, or only its network.
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let volumes =
            docker.list_volumes(Some(options)).await.or_fail(&DRV_NOT_HEALTHY, "cannot list the engine's volumes")?;
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let networks =
            docker.list_networks(Some(options)).await.or_fail(&DRV_NOT_HEALTHY, "cannot list the engine's networks")?;
        let labels = containers.into_iter().filter_map(|container| container.labels);
        let labels = labels.chain(volumes.volumes.into_iter().flatten().map(|volume| volume.labels));
        let labels = labels.chain(networks.into_iter().filter_map(|network| network.labels));
        let names: BTreeSet<String> = labels.filter_map(|mut labels| labels.remove(LABEL)).collect();
        Ok(names.into_iter().collect())
    }
}

impl DockerDriver {
    fn home_label(&self) -> String {
        self.home.root().display().to_string()
    }

    /// Networks that the profiles of other clusters name.
    fn networks_of_others(&self, cluster: &str) -> Vec<String> {
        Profile::others(&self.home, cluster).filter_map(|profile| profile.networking.network).collect()
    }

    /// The engine and what it is.
    async fn engine(&self) -> Outcome<&(Engine, String)> {
        let engine = async {
            let engine = Engine::connect(self.endpoint.as_ref()).await?;
            let about = engine.check().await?;
            Ok((engine, about))
        };
        self.engine.get_or_try_init(|| engine).await
    }

    async fn docker(&self) -> Outcome<&Docker> {
        Ok(&self.engine().await?.0.docker)
    }

    /// What to ask for at first: Podman's service keeps the ports of a container that it could not start, so there has to be no
    /// second time where limits cannot be raised.
    async fn first_rights(&self) -> Outcome<Rights> {
        let version =
            self.docker().await?.version().await.or_fail(&DRV_NOT_HEALTHY, "the engine does not say what it is")?;
        let is_podman = version.components.iter().flatten().any(|component| component.name.contains("Podman"));
        Ok(if is_podman && !spec::may_raise_limits() { Rights::Limited } else { Rights::Privileged })
    }

    /// PID 1 of a container, if it is a process of this machine that this process may enter.
    async fn process(&self, container: &str) -> Outcome<Option<u32>> {
        let docker = self.docker().await?;
        let state = docker
            .inspect_container(container, None)
            .await
            .or_fail(&GUEST_MOUNT, "cannot inspect the node's container")?;
        let pid = state.state.and_then(|state| u32::try_from(state.pid?).ok()).filter(|pid| *pid > 0);
        let (Some(pid), Some(id)) = (pid, state.id) else { return Ok(None) };
        // On another machine, also a virtual one, the number is another process', or none's.
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        Ok(Some(pid).filter(|_| groups.contains(&id) && rustix::process::geteuid().is_root()))
    }

    fn labels(&self, profile: &str) -> HashMap<String, String> {
        HashMap::from([(LABEL.to_owned(), profile.to_owned()), (HOME_LABEL.to_owned(), self.home_label())])
    }

    /// Names of the cluster's containers and volumes, as their labels say it.
    async fn objects(&self, docker: &Docker, cluster: &str) -> Outcome<BTreeSet<String>> {
        let (theirs, ours) = (format!("{LABEL}={cluster}"), format!("{HOME_LABEL}={}", self.home_label()));
        let filters = HashMap::from([("label", vec![theirs.as_str(), ours.as_str()])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let containers = docker.list_containers(Some(options)).await;
        let containers = containers.or_fail(&DRV_NOT_HEALTHY, "cannot list the engine's containers")?;
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let volumes = docker.list_volumes(Some(options)).await;
        let volumes = volumes.or_fail(&DRV_NOT_HEALTHY, "cannot list the engine's volumes")?.volumes;
        let mut names: BTreeSet<String> = volumes.into_iter().flatten().map(|volume| volume.name).collect();
        let containers = containers.into_iter().filter_map(|container| container.names).flatten();
        names.extend(containers.map(|name| name.trim_start_matches('/').to_owned()));
        Ok(names)
    }

    /// The container once more, with other rights; the node's files are on the volume already.
    async fn make_again(&self, docker: &Docker, machine: Machine<'_>, rights: Rights) -> Outcome<()> {
        let name = &name_of(machine);
        let old =
            docker.inspect_container(name, None).await.or_fail(&GUEST_START, "cannot inspect the node's container")?;
        let image = old.config.and_then(|c| c.image).unwrap_or_default();
        remove_container(docker, name).await?;
        let body = spec::container(machine, &image, self.labels(&machine.profile().name), rights);
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let made = docker.create_container(Some(options), body).await;
        made.map(drop).or_fail(&DRV_CREATE, "cannot make the node's container")
    }
}

/// One of this machine's that no other cluster has, or whether the one wanted is free. Fixed for the profile's life, so that
/// kubeconfigs stay right across restarts.
fn free_port(address: IpAddr, wanted: Option<u16>, taken: &[u16]) -> Outcome<u16> {
    let bound = |port| TcpListener::bind((address, port)).and_then(|listener| Ok(listener.local_addr()?.port()));
    if let Some(port) = wanted {
        return bound(port).or_fail(&HOST_PORT_IN_USE, format_args!("port {port} of the API is not free on {address}"));
    }
    let free = ports::lasting().filter(|port| !taken.contains(port)).find_map(|port| bound(port).ok());
    free.ok_or_else(|| Failure::new(&HOST_PORT_IN_USE, format!("no port of {address} is free")))
}

/// One of another machine's that nobody answers at.
async fn free_port_of(machine: &str, taken: &[u16]) -> u16 {
    const ATTEMPTS: usize = 8;
    const PATIENCE: Duration = Duration::from_secs(1);
    let mut last = None;
    for port in ports::usual().filter(|port| !taken.contains(port)).take(ATTEMPTS) {
        last = Some(port);
        let dialled = tokio::time::timeout(PATIENCE, TcpStream::connect((machine, port))).await;
        if !matches!(dialled, Ok(Ok(_))) {
            break;
        }
    }
    last.unwrap_or(*ports::USUAL.start())
}

/// Whether the networks of an engine of this machine are elsewhere all the same: in a virtual machine, or in a user's own
/// namespace.
fn is_apart(info: &SystemInfo) -> bool {
    let is_virtual = info.operating_system.as_deref().is_some_and(|name| name.contains("Docker Desktop"));
    let is_rootless = info.security_options.iter().flatten().any(|option| option.contains("rootless"));
    is_virtual || is_rootless
}

/// A container and its volume.
async fn remove_machine(docker: &Docker, name: &str) -> Outcome<()> {
    remove_container(docker, name).await?;
    let options = RemoveVolumeOptionsBuilder::new().force(true).build();
    found(docker.remove_volume(name, Some(options)).await)
        .or_fail(&GUEST_DELETION, "cannot remove the node's volume")?;
    Ok(())
}

async fn remove_container(docker: &Docker, name: &str) -> Outcome<()> {
    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    found(docker.remove_container(name, Some(options)).await)
        .or_fail(&GUEST_DELETION, "cannot remove the node's container")?;
    Ok(())
}

/// Puts files into the node's data directory, which is on its volume.
async fn upload(docker: &Docker, name: &str, files: &[NodeFile]) -> Outcome<()> {
    let fail = "cannot put the node's files into its volume";
    let bytes = NodeFile::archive(files, Path::new("lib/kminik"), Vec::new()).or_fail(&DRV_CREATE, fail)?;
    let options = UploadToContainerOptionsBuilder::new().path("/var").build();
    docker.upload_to_container(name, Some(options), bollard::body_full(bytes.into())).await.or_fail(&DRV_CREATE, fail)
}
