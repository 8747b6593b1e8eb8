//! Nodes by our own container runtime, on a bridge of the host. Needs root and a kernel with what containers need; nothing else.
//!
//! A machine lives in `machines/<name>/`: `data/` is the node's /var, `console.log` what PID 1 wrote. The records of what was
//! made for it are below /run/kminik, written before each effect, so that `delete` also works on what a killed start left.

mod rootfs;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kminik_net::hostnet::{self, HostNetError, HostNetSpec};
use kminik_runtime::node::{NodeContainer, NodeError, NodeMount, NodeSpec, NodeState, NodeStdio, Streams};
use rustix::process::Pid;
use tokio::net::TcpStream;

use super::output::Asked;
use super::{
    Driver, Health, Input, Machine, MachineState, NetworkWish, NodeCommand, NodeFile, NodeOutput, OutputBounds,
    Placement, Share, Taken, Userland, network, not_running, split_name,
};
use crate::agent::exit_watch;
use crate::engine::Duplex;
use crate::exposure::Exposure;
use crate::home::{Home, end_of, put_aside};
use crate::networking::{API_PORT, taken_on_nodes};
use crate::node::config::{DATA_DIR, NODE_IMAGES};
use crate::ops::{delete::remove_tree, node_image};
use crate::profile::Profile;
use crate::reason::{
    DRV_CREATE, DRV_NEEDS_ROOT, Failure, GUEST_DELETION, GUEST_EXEC, GUEST_MOUNT, GUEST_NOT_RUNNING, GUEST_START,
    GUEST_STOP_TIMEOUT, HOST_FIREWALL, HOST_KERNEL_FEATURE, IF_NETWORK, IF_SUBNET, MK_USAGE, OrFail, Outcome,
    RSRC_INSUFFICIENT_STORAGE,
};

/// Records of nodes; like what they describe they do not survive a reboot of the host.
const STATE_DIR: &str = "/run/kminik/nodes";
const EXEC_FAIL: &str = "cannot run the command in the node";
const CONSOLE: &str = "console.log";

struct Native {
    home: Home,
}

pub fn make(home: &Home, _profile: Option<&Profile>) -> Arc<dyn Driver> {
    Arc::new(Native { home: home.clone() })
}

impl Native {
    fn dir(&self, name: &str) -> PathBuf {
        self.home.machine(name)
    }

    /// Where the images of the cluster's own pods are.
    fn images(&self, name: &str) -> PathBuf {
        self.dir(name).join("data").join(NODE_IMAGES)
    }

    fn open(&self, name: &str) -> Outcome<Option<NodeContainer>> {
        NodeContainer::open(&state_dir(name), name)
            .map_err(|e| node_failure(&GUEST_START, "cannot read the machine's record", &e))
    }

    fn running(&self, machine: Machine<'_>) -> Outcome<NodeContainer> {
        let name = &machine.name();
        match self.open(name)? {
            Some(node) if node.state() == NodeState::Running => Ok(node),
            _ => Err(not_running(name)),
        }
    }

    fn network(machine: Machine<'_>) -> Outcome<HostNetSpec> {
        let profile = machine.profile();
        Ok(HostNetSpec {
            profile: profile.name.clone(),
            subnet: profile.subnet.parse().or_fail(&IF_SUBNET, "the profile's subnet cannot be used")?,
            node: machine.name().into_owned(),
            node_address: machine.address(),
            host_ports: profile.gateway_ports(),
            state_dir: hostnet::STATE_DIR.into(),
        })
    }

    /// Takes back what `create` and `start` made; the data stays.
    async fn take_back(&self, machine: Machine<'_>) -> Outcome<()> {
        let network = Self::network(machine)?;
        Self::take_back_container(&machine.name()).await?;
        hostnet::detach(&network).await.map_err(|e| network_failure(&e))?;
        remove_records();
        Ok(())
    }

    async fn take_back_container(name: &str) -> Outcome<()> {
        NodeContainer::delete(&state_dir(name), name)
            .await
            .map_err(|e| node_failure(&GUEST_DELETION, "cannot take back what was made for the node", &e))
    }

    /// Names of the machines that lie here.
    fn machines(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.home.root().join("machines")) else { return Vec::new() };
        entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// The cluster that a machine with this name is of: a worker's, unless there is a profile of just this name.
    fn cluster_of<'a>(&self, machine: &'a str) -> &'a str {
        match split_name(machine) {
            Some((cluster, _)) if !Profile::exists(&self.home, machine) => cluster,
            _ => machine,
        }
    }
}

/// Directories of records that are empty now; another cluster's records keep them.
fn remove_records() {
    for directory in [Some(Path::new(STATE_DIR)), Path::new(STATE_DIR).parent()].into_iter().flatten() {
        let _ = std::fs::remove_dir(directory);
    }
}

/// Where the runtime keeps its record of a node.
fn state_dir(name: &str) -> PathBuf {
    Path::new(STATE_DIR).join(name)
}

fn network_failure(error: &HostNetError) -> Failure {
    match error {
        HostNetError::Firewall { command, .. } => {
            Failure::new(&HOST_FIREWALL, error.to_string()).advise(format!("Run: {command}"))
        }
        _ => Failure::because(&IF_NETWORK, "cannot make the node's network", error),
    }
}

fn node_failure(reason: &'static crate::reason::Reason, what: &str, error: &NodeError) -> Failure {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = source {
        if cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.raw_os_error() == Some(libc::ENOSPC)) {
            return Failure::because(&RSRC_INSUFFICIENT_STORAGE, what, error);
        }
        source = cause.source();
    }
    Failure::because(reason, what, error)
}

/// What the kernel must offer: (file or directory, what it is for).
const KERNEL: &[(&str, &str)] = &[
    ("/proc/self/ns/net", "network namespaces (CONFIG_NET_NS)"),
    ("/proc/self/ns/pid", "process namespaces (CONFIG_PID_NS)"),
    ("/proc/self/ns/cgroup", "cgroup namespaces (CONFIG_CGROUPS)"),
];

#[async_trait]
impl Driver for Native {
    async fn probe(&self) -> Health {
        if !rustix::process::geteuid().is_root() {
            return Health::bad(&DRV_NEEDS_ROOT, "the native driver needs root", "");
        }
        for (path, what) in KERNEL {
            if !Path::new(path).exists() {
                return Health::bad(
                    &HOST_KERNEL_FEATURE,
                    format!("this kernel lacks {what}"),
                    "Use another kernel, or the docker driver elsewhere.",
                );
            }
        }
        let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        if !filesystems.lines().any(|line| line.split_whitespace().last() == Some("overlay")) {
            return Health::bad(&HOST_KERNEL_FEATURE, "this kernel has no overlayfs loaded", "Run: modprobe overlay");
        }
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Health::good(format!("Linux {}", release.trim()))
    }

    async fn place(&self, wish: &NetworkWish, _exposure: &Exposure, taken: &Taken) -> Outcome<Placement> {
        if let Some(network) = &wish.network {
            return Err(Failure::new(
                &MK_USAGE,
                format!("--network={network} is of container engines: the native driver makes a network of its own"),
            )
            .advise("Choose where it is with --subnet, or use --driver=docker."));
        }
        if let Some((port, why)) = wish.api_port.and_then(|port| Some((port, taken_on_nodes(port)?))) {
            return Err(Failure::new(&MK_USAGE, format!("--apiserver-port={port} cannot be that of a node: {why}"))
                .advise(
                    "Choose another: by the native driver the API has the same port on the node and for this machine.",
                ));
        }
        let site = network::choose(wish, &taken.subnets).await?;
        Ok(Placement {
            subnet: site.subnet.to_string(),
            gateway: site.gateway,
            node_address: site.node_address,
            api_host: site.node_address.to_string(),
            api_port: wish.api_port.unwrap_or(API_PORT),
            tunnel: false,
            engine: None,
        })
    }

    async fn create(&self, machine: Machine<'_>, userland: &Userland, files: &[NodeFile]) -> Outcome<()> {
        let (profile, name) = (machine.profile(), machine.name().into_owned());
        let dir = self.dir(&name);
        self.home.make_dir(&dir)?;
        // Volumes and secrets of the cluster are in it.
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))
            .or_fail(&DRV_CREATE, "cannot protect the node's data")?;
        let data = dir.join("data");
        let is_new = !data.exists();
        write_files(&data, files)?;
        // A record that is there is of a node that ended without `stop`: it is made anew.
        self.take_back(machine).await?;
        let images = self.images(&name);
        // Of just this binary; the control plane's, so that all nodes share its memory.
        let identity = node_image::identity(&[])?;
        let copies = [&name, &profile.name].map(|of| rootfs::binary(&self.images(of).join(&identity)));
        let root = rootfs::ensure(&dir, userland, copies.iter().find(|copy| copy.exists()).map(PathBuf::as_path))?;
        if is_new {
            rootfs::fill(&root.join("var"), &data).or_fail(&DRV_CREATE, "cannot copy the base image's /var")?;
        }
        rootfs::share(&root, &images)?;
        put_aside(&dir.join(CONSOLE));
        let spec = NodeSpec {
            name: name.clone(),
            state_dir: state_dir(&name),
            rootfs: vec![root],
            data_dir: data,
            hostname: name,
            cpus: machine.cpus(),
            memory_bytes: machine.memory_bytes(),
            argv: vec![node_image::BINARY.to_owned(), "init".to_owned()],
            env: crate::env::for_node(&profile.host_loopback(), &profile.networking),
            mounts: profile.mounts.iter().cloned().map(NodeMount::from).collect(),
            console_log: dir.join(CONSOLE),
        };
        let node =
            NodeContainer::create(&spec).await.map_err(|e| node_failure(&DRV_CREATE, "cannot make the node", &e))?;
        hostnet::attach(&Self::network(machine)?, &node.netns_path()).await.map_err(|e| network_failure(&e))
    }

    async fn start(&self, machine: Machine<'_>) -> Outcome<()> {
        let name = machine.name();
        let node = self.open(&name)?;
        let node = node.ok_or_else(|| Failure::new(&GUEST_START, format!("the node \"{name}\" was not made")))?;
        node.start().map_err(|e| node_failure(&GUEST_START, "cannot start the node", &e))
    }

    async fn resize(&self, machine: Machine<'_>) -> Outcome<()> {
        let resized = self.running(machine)?.resize(machine.cpus(), machine.memory_bytes());
        resized.map_err(|e| node_failure(&DRV_CREATE, "cannot change what the node may use", &e))
    }

    async fn dial(&self, _machine: Machine<'_>, address: SocketAddr) -> Outcome<Box<dyn Duplex>> {
        let stream = TcpStream::connect(address).await.or_fail(&GUEST_NOT_RUNNING, "the node cannot be reached")?;
        Ok(Box::new(stream))
    }

    fn binary(&self, machine: Machine<'_>) -> Option<PathBuf> {
        let name = &machine.name();
        let of_image = self.images(name).join(node_image::identity(&[]).ok()?);
        let roots = [Some(of_image), rootfs::find(&self.dir(name))];
        roots.into_iter().flatten().map(|root| rootfs::binary(&root)).find(|binary| binary.exists())
    }

    async fn newer_binary(&self, machine: Machine<'_>) -> Outcome<Option<String>> {
        let name = &machine.name();
        let Some(pid) = self.open(name)?.and_then(|node| node.pid()) else { return Ok(None) };
        // As the node sees it: another may lie over the one of its root filesystem.
        let theirs = format!("/proc/{pid}/root{}", node_image::BINARY);
        let digest = match node_image::digest_of(Path::new(&theirs)) {
            Ok(digest) => digest,
            // A node that has just been killed has no root any more: whoever waits for it next will see that.
            Err(_) if !Path::new(&theirs).exists() => return Ok(None),
            Err(failure) => return Err(failure),
        };
        if digest == node_image::digest()? {
            return Ok(None);
        }
        let identity = node_image::identity(&[])?;
        // Its root filesystem cannot be changed below it; its data can. Containers run from the image before.
        node_image::ensure(&self.images(name), &identity, None, 1)
            .map_err(|error| rootfs::failure("cannot make the image of the cluster's own pods", &error))?;
        Ok(Some(format!("/var/{NODE_IMAGES}/{identity}{}", node_image::BINARY)))
    }

    async fn stop(&self, machine: Machine<'_>, bound: Duration) -> Outcome<()> {
        if let Some(node) = self.open(&machine.name())? {
            node.stop(bound).await.map_err(|e| node_failure(&GUEST_STOP_TIMEOUT, "cannot stop the node", &e))?;
        }
        self.take_back(machine).await
    }

    async fn remove(&self, machine: Machine<'_>) -> Outcome<()> {
        self.take_back(machine).await?;
        remove_tree(&self.dir(&machine.name()))
    }

    async fn delete(&self, cluster: &str) -> Outcome<()> {
        let mut machines: BTreeSet<String> =
            self.machines().into_iter().filter(|name| self.cluster_of(name) == cluster).collect();
        machines.insert(cluster.to_owned());
        // One that runs may have lost its directory.
        let recorded = hostnet::nodes(cluster, Path::new(hostnet::STATE_DIR)).await;
        machines.extend(recorded.map_err(|e| network_failure(&e))?);
        for name in &machines {
            Self::take_back_container(name).await?;
        }
        hostnet::detach_profile(cluster, Path::new(hostnet::STATE_DIR)).await.map_err(|e| network_failure(&e))?;
        remove_records();
        machines.iter().try_for_each(|name| remove_tree(&self.dir(name)))
    }

    async fn state(&self, machine: Machine<'_>) -> Outcome<MachineState> {
        let name = &machine.name();
        Ok(match self.open(name)? {
            Some(node) if node.state() == NodeState::Running => MachineState::Running,
            // The data is the machine: of one without it only the record of what it has ended with is left.
            _ if self.dir(name).join("data").exists() => MachineState::Stopped,
            _ => MachineState::Nonexistent,
        })
    }

    async fn exited(&self, machine: Machine<'_>) -> Outcome<()> {
        let name = &machine.name();
        let pid = || -> Outcome<Option<Pid>> {
            Ok(self.open(name)?.and_then(|node| node.pid()).and_then(|pid| Pid::from_raw(pid.cast_signed())))
        };
        let Some(found) = pid()? else { return Ok(()) };
        let Ok(exit) = exit_watch(found) else { return Ok(()) };
        // Between reading the pid and opening it another process could have got the number.
        if pid()? != Some(found) {
            return Ok(());
        }
        exit.readable().await.map(drop).or_fail(&GUEST_START, "cannot wait for the node")
    }

    async fn exec(&self, machine: Machine<'_>, command: &NodeCommand) -> Outcome<i32> {
        let node = self.running(machine)?;
        let failed = |e: NodeError| node_failure(&GUEST_EXEC, EXEC_FAIL, &e);
        if command.tty {
            return node.exec(&command.args, true).await.map_err(failed);
        }
        let streams = streams(command).or_fail(&GUEST_EXEC, EXEC_FAIL)?;
        let process = node.spawn(&command.args, NodeStdio::Streams(streams)).await.map_err(failed)?;
        process.wait().await.map_err(failed)
    }

    async fn share(&self, machine: Machine<'_>, share: &Share) -> Outcome<()> {
        let outcome = self.running(machine)?.bind(&share.clone().into()).await;
        outcome.map_err(|e| node_failure(&GUEST_MOUNT, "cannot show it in the node", &e))
    }

    async fn output(&self, machine: Machine<'_>, args: &[&str], bounds: OutputBounds) -> Outcome<NodeOutput> {
        let asked = Asked { machine, args, bounds };
        let args: Vec<String> = args.iter().map(|&a| a.to_owned()).collect();
        let output = self.running(machine)?.output(&args, bounds).await.map_err(|error| match error {
            NodeError::Endless => asked.endless(),
            NodeError::TooMuch => asked.too_much(),
            other => node_failure(&GUEST_EXEC, EXEC_FAIL, &other),
        })?;
        Ok(NodeOutput { exit_code: output.exit_code, stdout: output.stdout, stderr: output.stderr })
    }

    async fn console(&self, machine: Machine<'_>) -> Outcome<Vec<u8>> {
        Ok(end_of(&self.dir(&machine.name()).join(CONSOLE)))
    }

    async fn clusters(&self) -> Outcome<Vec<String>> {
        Ok(self.machines().iter().map(|machine| self.cluster_of(machine).to_owned()).collect())
    }
}

/// A command's streams, as descriptors of its own.
fn streams(command: &NodeCommand) -> std::io::Result<Streams> {
    let copy = |stream: std::os::fd::BorrowedFd<'_>| stream.try_clone_to_owned();
    Ok(Streams {
        stdin: match &command.stdin {
            Input::None => std::fs::File::open("/dev/null")?.into(),
            Input::Own => copy(std::io::stdin().as_fd())?,
            Input::File(file) => copy(file.as_fd())?,
        },
        stdout: match &command.stdout {
            Some(file) => copy(file.as_fd())?,
            None => copy(std::io::stdout().as_fd())?,
        },
        stderr: copy(std::io::stderr().as_fd())?,
    })
}

/// Puts the node's files into its data directory.
fn write_files(data: &Path, files: &[NodeFile]) -> Outcome<()> {
    let root = data.join(DATA_DIR.trim_start_matches("/var/"));
    for file in files {
        let path = root.join(&file.path);
        let write = || -> std::io::Result<()> {
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir)?;
            }
            let mut out =
                std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(file.mode).open(&path)?;
            out.set_permissions(std::fs::Permissions::from_mode(file.mode))?;
            out.write_all(&file.content)
        };
        write().or_fail(&DRV_CREATE, format_args!("cannot write {}", path.display()))?;
    }
    Ok(())
}
