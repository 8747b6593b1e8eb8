//! Nodes as containers of a Docker engine, through its API; the docker binary is never called.
//!
//! A machine is: a container, a network and a volume (the node's /var), each named `kminik-<profile>` and labelled, so that
//! `delete` finds them whatever else is lost. The image is named by the digest of what is in it and loaded only once.

mod exec;
mod image;
mod spec;

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerStateStatusEnum, Ipam, IpamConfig, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder, StopContainerOptionsBuilder,
    UploadToContainerOptionsBuilder,
};
use futures::TryStreamExt;

use super::{Driver, Health, MachineState, NodeCommand, NodeFile, NodeOutput, Placement, Share, Userland};
use crate::home::Home;
use crate::profile::Profile;
use crate::reason::{
    DRV_CREATE, DRV_NOT_HEALTHY, Failure, GUEST_DELETION, GUEST_MOUNT, GUEST_START, GUEST_STOP_TIMEOUT,
    HOST_PORT_IN_USE, IF_NETWORK, IF_SUBNET, OrFail, Outcome,
};

/// On everything made; its value is the profile's name.
const LABEL: &str = "dev.kminik.profile";
/// On everything made; its value is the home directory whose cluster it is: several users share an engine.
const HOME_LABEL: &str = "dev.kminik.home";
/// Bound on a probe.
const PROBE: Duration = Duration::from_secs(5);
const CONSOLE_LIMIT_BYTES: usize = 4 << 20;

struct DockerDriver {
    home: String,
}

/// The built-in node image as it can be published, in docker-save's format; of this binary's version.
pub fn write_node_image(out: impl std::io::Write) -> std::io::Result<()> {
    image::write_archive(out, &format!("{}:v{}", image::REPOSITORY, crate::version::KMINIK), &Userland::BuiltIn)
}

pub fn make(home: &Home) -> Arc<dyn Driver> {
    Arc::new(DockerDriver { home: home.root().display().to_string() })
}

fn object_name(profile: &str) -> String {
    format!("kminik-{profile}")
}

fn connect() -> Outcome<Docker> {
    Docker::connect_with_defaults().or_fail(&DRV_NOT_HEALTHY, "cannot reach the Docker engine")
}

/// `None` for what is not there.
fn found<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[async_trait]
impl Driver for DockerDriver {
    async fn probe(&self) -> Health {
        let advice = "Start the Docker engine, or use --driver=native as root.";
        let docker = match connect() {
            Ok(docker) => docker,
            Err(failure) => return Health::bad(&DRV_NOT_HEALTHY, failure.message, advice),
        };
        match tokio::time::timeout(PROBE, docker.info()).await {
            Err(_) => Health::bad(
                &DRV_NOT_HEALTHY,
                format!("the Docker engine did not answer within {} s", PROBE.as_secs()),
                advice,
            ),
            Ok(Err(error)) => {
                let text = kminik_base::component::chain(&error);
                if text.contains("ermission denied") {
                    let advice = "Add yourself to the docker group (sudo usermod -aG docker $USER && newgrp docker).";
                    Health::bad(&DRV_NOT_HEALTHY, format!("the Docker engine refuses this user: {text}"), advice)
                } else {
                    Health::bad(&DRV_NOT_HEALTHY, format!("no Docker engine answers: {text}"), advice)
                }
            }
            Ok(Ok(info)) if info.os_type.as_deref().is_some_and(|os| os != "linux") => Health::bad(
                &DRV_NOT_HEALTHY,
                "the Docker engine runs Windows containers",
                "Switch it to Linux containers.",
            ),
            Ok(Ok(_)) => Health::good(),
        }
    }

    async fn place(&self, _name: &str, taken: &[String]) -> Outcome<Placement> {
        let docker = connect()?;
        let networks = docker
            .list_networks(Some(ListNetworksOptionsBuilder::new().build()))
            .await
            .or_fail(&IF_NETWORK, "cannot list the engine's networks")?;
        let theirs = networks.into_iter().filter_map(|n| n.ipam?.config).flatten().filter_map(|c| c.subnet);
        let taken: Vec<_> = theirs.chain(taken.iter().cloned()).filter_map(|subnet| subnet.parse().ok()).collect();
        let subnet = kminik_net::hostnet::plan(&taken).await.or_fail(&IF_SUBNET, "no subnet is free")?;
        let gateway = kminik_net::hostnet::gateway(subnet);
        // Fixed for the profile's life, so that kubeconfigs stay right across restarts.
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).or_fail(&HOST_PORT_IN_USE, "no port of loopback is free")?;
        let api_port = listener.local_addr().or_fail(&HOST_PORT_IN_USE, "no port of loopback is free")?.port();
        Ok(Placement {
            subnet: subnet.to_string(),
            gateway,
            node_address: Ipv4Addr::from(u32::from(gateway) + 1),
            api_host: Ipv4Addr::LOCALHOST.to_string(),
            api_port,
        })
    }

    async fn create(&self, profile: &Profile, userland: &Userland, files: &[NodeFile]) -> Outcome<()> {
        let docker = connect()?;
        let name = object_name(&profile.name);
        let image = image::ensure(&docker, userland).await?;
        make_network(&docker, profile, self.labels(&profile.name)).await?;
        let volume = VolumeCreateRequest {
            name: Some(name.clone()),
            labels: Some(self.labels(&profile.name)),
            ..Default::default()
        };
        docker.create_volume(volume).await.or_fail(&DRV_CREATE, "cannot make the node's volume")?;
        remove_container(&docker, &name).await?;
        let body = spec::container(profile, &image, &name, self.labels(&profile.name), true);
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        docker.create_container(Some(options), body).await.or_fail(&DRV_CREATE, "cannot make the node's container")?;
        upload(&docker, &name, files).await
    }

    async fn start(&self, profile: &Profile) -> Outcome<()> {
        let docker = connect()?;
        let name = object_name(&profile.name);
        let Err(error) = docker.start_container(&name, None).await else { return Ok(()) };
        let text = error.to_string();
        if text.contains("unable to apply caps") || text.contains("apply caps") {
            // The engine cannot grant every capability: ask for each that it can.
            return self.start_with_listed_capabilities(&docker, profile, &name).await;
        }
        if text.contains("port is already allocated") || text.contains("address already in use") {
            return Err(Failure::because(
                &HOST_PORT_IN_USE,
                format_args!("port {} of the API is taken", profile.api_port),
                &error,
            ));
        }
        Err(Failure::because(&GUEST_START, "cannot start the node's container", &error))
    }

    async fn stop(&self, profile: &Profile, bound: Duration) -> Outcome<()> {
        let seconds = i32::try_from(bound.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        found(connect()?.stop_container(&object_name(&profile.name), Some(options)).await)
            .or_fail(&GUEST_STOP_TIMEOUT, "cannot stop the node's container")?;
        Ok(())
    }

    async fn delete(&self, name: &str) -> Outcome<()> {
        let docker = connect()?;
        let name = object_name(name);
        remove_container(&docker, &name).await?;
        let options = RemoveVolumeOptionsBuilder::new().force(true).build();
        found(docker.remove_volume(&name, Some(options)).await)
            .or_fail(&GUEST_DELETION, "cannot remove the node's volume")?;
        found(docker.remove_network(&name).await).or_fail(&GUEST_DELETION, "cannot remove the cluster's network")?;
        image::remove_unused(&docker).await
    }

    async fn state(&self, name: &str) -> Outcome<MachineState> {
        let docker = connect()?;
        let container = found(docker.inspect_container(&object_name(name), None).await)
            .or_fail(&DRV_NOT_HEALTHY, "cannot inspect the node's container")?;
        match container.and_then(|c| c.state?.status) {
            Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::PAUSED) => Ok(MachineState::Running),
            Some(_) => Ok(MachineState::Stopped),
            None => {
                // The container is replaceable, the volume is the cluster.
                let volume = found(docker.inspect_volume(&object_name(name)).await)
                    .or_fail(&DRV_NOT_HEALTHY, "cannot inspect the node's volume")?;
                Ok(if volume.is_some() { MachineState::Stopped } else { MachineState::Nonexistent })
            }
        }
    }

    async fn share(&self, _name: &str, _share: &Share) -> Outcome<()> {
        Err(Failure::new(&GUEST_MOUNT, "a container of the Docker engine gets no further directories while it runs")
            .advise("Copy files with 'kminik cp', or use the native driver, whose nodes do."))
    }

    async fn exec(&self, name: &str, command: &NodeCommand) -> Outcome<i32> {
        exec::attached(&connect()?, &object_name(name), command).await
    }

    async fn output(&self, name: &str, args: &[&str]) -> Outcome<NodeOutput> {
        exec::collected(&connect()?, &object_name(name), args).await
    }

    async fn console(&self, name: &str) -> Outcome<Vec<u8>> {
        let docker = connect()?;
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail("1000").build();
        let mut text = Vec::new();
        let mut stream = docker.logs(&object_name(name), Some(options));
        while let Ok(Some(chunk)) = stream.try_next().await {
            text.extend_from_slice(&chunk.into_bytes());
            if text.len() > CONSOLE_LIMIT_BYTES {
                break;
            }
        }
        Ok(text)
    }

    async fn machines(&self) -> Outcome<Vec<String>> {
        let ours = format!("{HOME_LABEL}={}", self.home);
        let filters = HashMap::from([("label", vec![LABEL, ours.as_str()])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let containers = connect()?
            .list_containers(Some(options))
            .await
            .or_fail(&DRV_NOT_HEALTHY, "cannot list the engine's containers")?;
        Ok(containers.into_iter().filter_map(|c| c.labels?.remove(LABEL)).collect())
    }
}

impl DockerDriver {
    fn labels(&self, profile: &str) -> HashMap<String, String> {
        HashMap::from([(LABEL.to_owned(), profile.to_owned()), (HOME_LABEL.to_owned(), self.home.clone())])
    }

    async fn start_with_listed_capabilities(&self, docker: &Docker, profile: &Profile, name: &str) -> Outcome<()> {
        let old =
            docker.inspect_container(name, None).await.or_fail(&GUEST_START, "cannot inspect the node's container")?;
        let image = old.config.and_then(|c| c.image).unwrap_or_default();
        // The node's files are on the volume already.
        remove_container(docker, name).await?;
        let body = spec::container(profile, &image, name, self.labels(&profile.name), false);
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        docker.create_container(Some(options), body).await.or_fail(&DRV_CREATE, "cannot make the node's container")?;
        docker.start_container(name, None).await.or_fail(&GUEST_START, "cannot start the node's container")
    }
}

async fn make_network(docker: &Docker, profile: &Profile, labels: HashMap<String, String>) -> Outcome<()> {
    let name = object_name(&profile.name);
    let existing =
        found(docker.inspect_network(&name, None).await).or_fail(&IF_NETWORK, "cannot inspect the network")?;
    if existing.is_some() {
        return Ok(());
    }
    let pool = IpamConfig {
        subnet: Some(profile.subnet.clone()),
        gateway: Some(profile.gateway.to_string()),
        ..Default::default()
    };
    let request = NetworkCreateRequest {
        name,
        driver: Some("bridge".into()),
        ipam: Some(Ipam { config: Some(vec![pool]), ..Default::default() }),
        options: Some(HashMap::from([("com.docker.network.bridge.enable_ip_masquerade".into(), "true".into())])),
        labels: Some(labels),
        ..Default::default()
    };
    docker.create_network(request).await.or_fail(&IF_NETWORK, "cannot make the cluster's network")?;
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
    let mut archive = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(file.content.len() as u64);
        header.set_mode(file.mode);
        header.set_mtime(0);
        let path = std::path::Path::new("lib/kminik").join(&file.path);
        archive.append_data(&mut header, path, file.content.as_slice()).or_fail(&DRV_CREATE, fail)?;
    }
    let bytes = archive.into_inner().or_fail(&DRV_CREATE, fail)?;
    let options = UploadToContainerOptionsBuilder::new().path("/var").build();
    docker.upload_to_container(name, Some(options), bollard::body_full(bytes.into())).await.or_fail(&DRV_CREATE, fail)
}
