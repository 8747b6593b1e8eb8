//! What may be typed. Names, shapes and defaults are minikube's wherever minikube has them.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands;

/// A real Kubernetes cluster on your own machine, from one static binary.
#[derive(Debug, Parser)]
#[command(name = "kminik", version = crate::version::KMINIK, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Name of the cluster
    #[arg(short = 'p', long, global = true, env = "KMINIK_PROFILE", default_value = crate::profile::DEFAULT)]
    pub profile: String,
    /// Who the audit log says has run the command
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Option<String>,
    /// Leave the command out of the audit log
    #[arg(long, global = true)]
    pub skip_audit: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a cluster; starting a running one changes nothing
    Start(Box<commands::start::Args>),
    /// Stop a cluster, keeping everything in it
    Stop(commands::stop::Args),
    /// Delete a cluster and every trace of it
    Delete(commands::delete::Args),
    /// Show how the cluster is
    Status(commands::status::Args),
    /// Show which drivers can be used here, and what stands in the way of clusters
    Doctor(commands::doctor::Args),
    /// Keep values for flags of start
    Config(commands::config::Args),
    /// Make the kubeconfig lead to the cluster, and the cluster its current one
    UpdateContext(commands::update_context::Args),
    /// Have containers stand still; with those of kube-system the API answers nobody
    Pause(commands::pause::Args),
    /// Let what is paused go on
    #[command(visible_alias = "resume")]
    Unpause(commands::pause::Args),
    /// Copy a file to, from or between nodes
    Cp(commands::cp::Args),
    /// Show a directory of this machine in the node, until Ctrl-C
    Mount(commands::mount::Args),
    /// Write a cluster's logs into files
    Export(commands::export::Args),
    /// Show or open the addresses of Services
    Service(commands::service::Args),
    /// Run kubectl against the cluster
    Kubectl(commands::kubectl::Args),
    /// Add to a cluster what it does not have by itself
    Addons(commands::addons::Args),
    /// Work with the images in the cluster
    Image(commands::image::Args),
    /// Show, try and change the places that images are fetched from
    Mirror(commands::mirror::Args),
    /// Pack images into one file, and take them in where there is no network
    Bundle(commands::bundle::Args),
    /// Work with this machine's cache of images
    Cache(commands::cache::Args),
    /// Save all objects of a cluster into a file, and bring them back
    Snapshot(commands::snapshot::Args),
    /// Add, delete, list, start and stop the nodes of a cluster
    Node(commands::node::Args),
    /// Show what the node and its parts have logged
    Logs(commands::logs::Args),
    /// Print the node's address
    Ip(commands::ip::Args),
    /// Open a shell in the node, or run a command there
    Ssh(commands::ssh::Args),
    /// Say which cluster is meant, or list all
    Profile(commands::profile::Args),
    /// Print the version
    Version(commands::version::Args),
    /// Print a completion script for a shell
    Completion(commands::completion::Args),
    #[command(flatten)]
    Internal(Internal),
}

/// What kminik runs of itself.
#[derive(Debug, Subcommand)]
pub enum Internal {
    /// Write the node image that can be published
    #[command(hide = true)]
    NodeImage(commands::internal::NodeImageArgs),
    /// Take the node's process over, in the node
    #[command(hide = true)]
    NodeReplace,
    /// The host's process of a cluster
    #[command(hide = true)]
    Agent,
    /// Cluster DNS, in its pod
    #[command(hide = true)]
    Dns(commands::internal::DnsArgs),
    /// The storage provisioner, in its pod
    #[command(hide = true)]
    StorageProvisioner,
    /// The image registry, in its pod
    #[command(hide = true)]
    Registry(commands::internal::RegistryArgs),
    /// The node's shell
    #[command(hide = true)]
    Shell(commands::internal::ShellArgs),
    /// Files of the node, in the node
    #[command(hide = true)]
    NodeFile(commands::internal::NodeFileArgs),
    /// Pausing, in the node
    #[command(hide = true)]
    NodePause(commands::internal::NodePauseArgs),
    /// Taking a mount away, in the node
    #[command(hide = true)]
    NodeUnmount { path: PathBuf },
    /// Other limits for the node, in the node
    #[command(hide = true)]
    NodeLimits { cpus: u32, memory_bytes: u64 },
    /// Standard streams joined with an address, in the node
    #[command(hide = true)]
    NodeDial { address: std::net::SocketAddr },
    /// The node's logs, in the node
    #[command(hide = true)]
    NodeLogs(commands::internal::NodeLogsArgs),
}
