//! `kminik start`.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::{Context, Output};
use crate::drivers::{NetworkWish, parse_subnet};
use crate::exposure;
use crate::networking;
use crate::ops::mounts;
use crate::ops::start::{self, Request};
use crate::ops::units;
use crate::printer::Printer;
use crate::reason::Outcome;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// File that says what the flags say: a Cluster of kminik or kind, or k3s's registries.yaml; - is standard input
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Where the node lives: docker or native; chosen by itself if not given
    #[arg(short = 'd', long)]
    driver: Option<String>,
    #[arg(long, hide = true)]
    vm_driver: Option<String>,
    /// Image that gives the node its userland, instead of the built-in one
    #[arg(long, value_name = "IMAGE")]
    base_image: Option<String>,
    /// Mirror to pull from: URL, or REGISTRY=URL; may be given several times, and empty for none any more
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    registry_mirror: Vec<String>,
    /// Use the mirrors known to be near: cn, global
    #[arg(long, value_name = "COUNTRY")]
    image_mirror_country: Option<String>,
    /// Repository to take Kubernetes' own images from
    #[arg(long, value_name = "REPOSITORY")]
    image_repository: Option<String>,
    /// Registry (host[:port] or CIDR) that may be spoken to without TLS verification; empty for none any more
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    insecure_registry: Vec<String>,
    /// File with authorities (PEM) that registries may be signed by, beside those of this machine and ~/.kminik/certs; empty for none
    /// any more
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    ca_cert: Vec<OsString>,
    /// Keep the objects in this etcd cluster: http(s)://HOST:PORT of each member
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    datastore_endpoint: Vec<String>,
    /// File with the CA that signed the etcd members' certificates
    #[arg(long, value_name = "FILE")]
    datastore_cafile: Option<PathBuf>,
    /// File with the certificate to show to etcd
    #[arg(long, value_name = "FILE")]
    datastore_certfile: Option<PathBuf>,
    /// File with that certificate's key
    #[arg(long, value_name = "FILE")]
    datastore_keyfile: Option<PathBuf>,
    /// Setting of a component: apiserver.audit-policy-file=FILE, apiserver.audit-log-path=PATH and its maxsize, maxbackup, maxage,
    /// apiserver.runtime-config and apiserver.feature-gates of MutatingAdmissionPolicy; empty for none any more
    #[arg(long, value_name = "COMPONENT.KEY=VALUE")]
    extra_config: Vec<String>,
    /// For how long certificates are issued, a minute or more; they are renewed before they expire
    #[arg(long, value_name = "DURATION", value_parser = units::expiration)]
    cert_expiration: Option<Duration>,
    /// Version of Kubernetes: stable, latest, or the one served
    #[arg(long, value_name = "VERSION", default_value = "stable")]
    kubernetes_version: String,
    /// Nodes of a new cluster: the control plane and workers
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99))]
    nodes: Option<u32>,
    /// Refused: a cluster has one control plane
    #[arg(long)]
    ha: bool,
    /// Cores for each node: a number, max or no-limit
    #[arg(long, value_name = "N")]
    cpus: Option<String>,
    /// Memory for each node: 4g, 3900mb, a number of megabytes, max or no-limit
    #[arg(short = 'm', long, value_name = "SIZE")]
    memory: Option<String>,
    /// Network for the nodes, such as 192.168.50.0/24; a free one if not given
    #[arg(long, value_name = "CIDR", value_parser = parse_subnet)]
    subnet: Option<Ipv4Net>,
    /// Address of the node in it, private
    #[arg(long, value_name = "IP")]
    static_ip: Option<Ipv4Addr>,
    /// Address of this machine on which the API and published ports listen; loopback if not given
    #[arg(long, value_name = "IP")]
    listen_address: Option<IpAddr>,
    /// Port of the node to publish on this machine, as docker's --publish: [ADDRESS:][PORT:]NODEPORT[/udp]; may be given several
    /// times, and empty for none any more
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    ports: Vec<String>,
    /// Port of the API on the node, and where it is reached from this machine; 8443, by the docker driver there a free one, if not
    /// given. By the docker driver one that the node has for others is this machine's only
    #[arg(long, value_name = "PORT", value_parser = networking::parse_api_port)]
    apiserver_port: Option<u16>,
    /// Name or address by which the kubeconfig calls the API; its certificate is for it too
    #[arg(long, value_name = "NAME", value_parser = networking::parse_name)]
    apiserver_name: Option<String>,
    /// Further address that the API's certificate is for; empty for none any more, by --apiserver-names neither
    #[arg(long, value_name = "IP", value_delimiter = ',', value_parser = networking::parse_address)]
    apiserver_ips: Vec<String>,
    /// Further name that the API's certificate is for; empty for none any more, by --apiserver-ips neither
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = networking::parse_pattern)]
    apiserver_names: Vec<String>,
    /// Network of Services, /12 to /24; 10.96.0.0/12 if not given
    #[arg(long, value_name = "CIDR", value_parser = networking::parse_services)]
    service_cluster_ip_range: Option<Ipv4Net>,
    /// Domain of the names of Services; cluster.local if not given
    #[arg(long, value_name = "DOMAIN", value_parser = networking::parse_domain)]
    dns_domain: Option<String>,
    /// Docker network that the nodes are in, made if it is not there; one of the cluster's own if not given
    #[arg(long, value_name = "NAME", value_parser = networking::parse_network)]
    network: Option<String>,
    /// Directory or file of this machine that the node sees: HOST:NODE, read-only with :ro behind; may be given several times, and
    /// empty for none any more
    #[arg(long, value_name = "HOST:NODE")]
    mount_string: Vec<String>,
    /// Accepted for minikube's sake: --mount-string says all
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, default_value_t = false)]
    mount: bool,
    /// What to wait for: apiserver, node_ready, system_pods, default_sa, apps_running; all or none
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "all")]
    wait: Vec<String>,
    /// How long to wait for it
    #[arg(long, value_name = "DURATION", default_value = "6m", value_parser = units::duration)]
    wait_timeout: Duration,
    /// Check everything, make nothing
    #[arg(long)]
    dry_run: bool,
    /// Fetch what start would fetch, then end
    #[arg(long)]
    download_only: bool,
    /// Go on where a check that can be wrong refuses
    #[arg(long)]
    force: bool,
    /// If starting fails, delete the cluster and try once more
    #[arg(long)]
    delete_on_failure: bool,
    /// Leave the kubeconfig's current context as it is
    #[arg(long)]
    keep_context: bool,
    /// Namespace that kubectl uses in the cluster by itself; default, or the one that was chosen before, if not given
    #[arg(long, value_name = "NAME", value_parser = networking::parse_label)]
    namespace: Option<String>,
    /// Put certificates into the kubeconfig instead of their paths
    #[arg(long)]
    embed_certs: bool,
    /// Addons to enable, beside those that are there by default
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    addons: Vec<String>,
    /// Whether a new cluster gets the addons that are there by default: storage-provisioner, default-storageclass
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    install_addons: bool,
    /// Whether the cluster comes up with this machine, by a unit of systemd; as it was if not given
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    autostart: Option<bool>,
    /// Accepted for minikube's sake: no driver here needs VT-x
    #[arg(long)]
    no_vtx_check: bool,
    /// Format of the progress
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Output,
}

impl Args {
    pub fn is_json(&self) -> bool {
        self.output == Output::Json
    }
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    if args.driver.is_some() && args.vm_driver.is_some() {
        printer.warning("Both --driver and --vm-driver are given: --driver is used");
    }
    if args.ha {
        return Err(super::node::one_control_plane("--ha"));
    }
    if args.no_vtx_check {
        printer.info(crate::printer::OPTION, "--no-vtx-check has no meaning here: no driver of kminik needs VT-x");
    }
    if args.mount && args.mount_string.is_empty() {
        printer.warning("--mount alone mounts nothing: name what with --mount-string=HOST:NODE");
    }
    let api_names: Vec<String> = args.apiserver_ips.into_iter().chain(args.apiserver_names).collect();
    let request = Request {
        profile: context.profile.clone(),
        driver: args.driver.or(args.vm_driver),
        base_image: args.base_image,
        registries: start::Registries {
            country: args.image_mirror_country,
            mirrors: several(args.registry_mirror, one)?,
            // minikube looks for one then; here every place is tried anyway.
            repository: args.image_repository.filter(|repository| repository != "auto"),
            insecure: several(args.insecure_registry, one)?,
        },
        ca_certs: several(args.ca_cert, |file| Ok(vec![PathBuf::from(file)]))?,
        datastore: start::datastore::Request {
            endpoints: args.datastore_endpoint,
            ca_file: args.datastore_cafile,
            cert_file: args.datastore_certfile,
            key_file: args.datastore_keyfile,
        },
        extra_config: start::extra_config::ExtraConfig::parse(&args.extra_config)?,
        cert_expiration: args.cert_expiration,
        kubernetes_version: args.kubernetes_version,
        nodes: args.nodes,
        cpus: args.cpus.as_deref().map(units::cpus).transpose()?,
        memory_mib: args.memory.as_deref().map(units::memory_mib).transpose()?,
        network: NetworkWish { subnet: args.subnet, node_address: args.static_ip, ..NetworkWish::default() },
        networking: networking::Wish {
            services: args.service_cluster_ip_range,
            domain: args.dns_domain,
            api_port: args.apiserver_port,
            api_name: args.apiserver_name,
            network: args.network,
        },
        listen_address: args.listen_address,
        ports: several(args.ports, |text| exposure::parse(&text))?,
        api_names: several(api_names, one)?,
        mounts: several(args.mount_string, |text| mounts::parse(&text).map(|share| vec![share]))?,
        wait: start::Wait::parse(&args.wait)?,
        wait_timeout: args.wait_timeout,
        dry_run: args.dry_run,
        download_only: args.download_only,
        force: args.force,
        delete_on_failure: args.delete_on_failure,
        keep_context: args.keep_context,
        embed_certs: args.embed_certs,
        namespace: args.namespace,
        addons: args.addons,
        install_addons: args.install_addons,
        autostart: args.autostart,
    };
    start::run(&request, &context.home, printer).await?;
    Ok(ExitCode::SUCCESS)
}

/// All that a list that the cluster keeps is to be: `None` if the flag is not given, which leaves it; nothing if it is empty.
fn several<G: AsRef<OsStr>, T>(given: Vec<G>, parse: impl Fn(G) -> Outcome<Vec<T>>) -> Outcome<Option<Vec<T>>> {
    if given.is_empty() {
        return Ok(None);
    }
    let named = given.into_iter().filter(|value| !value.as_ref().is_empty());
    let all: Vec<Vec<T>> = named.map(parse).collect::<Outcome<_>>()?;
    Ok(Some(all.into_iter().flatten().collect()))
}

fn one<T>(value: T) -> Outcome<Vec<T>> {
    Ok(vec![value])
}

#[cfg(test)]
mod tests {
    use clap::{ArgAction, CommandFactory};

    use super::*;
    use crate::cli::Cli;
    use crate::settings;

    #[test]
    fn a_list_is_left_replaced_or_cleared() {
        let texts = |given: &[&str]| several(given.iter().map(ToString::to_string).collect(), one).unwrap();
        assert_eq!(texts(&[]), None);
        assert_eq!(texts(&[""]), Some(Vec::new()));
        assert_eq!(texts(&["a", "", "b"]), Some(vec!["a".to_owned(), "b".to_owned()]));
    }

    /// Each is accepted empty, by the command line and in a file, and says so; no other flag says it.
    #[test]
    fn lists_that_are_kept_say_that_they_can_be_cleared() {
        let command = Cli::command();
        let start = command.find_subcommand("start").unwrap();
        let says = |flag: &clap::Arg| {
            let help = flag.get_long_help().or(flag.get_help()).map(ToString::to_string).unwrap_or_default();
            help.contains("empty for none any more")
        };
        let saying: Vec<&str> =
            start.get_arguments().filter(|flag| says(flag)).filter_map(clap::Arg::get_long).collect();
        let mut kept = settings::KEPT.to_vec();
        kept.sort_unstable();
        let sorted = std::collections::BTreeSet::from_iter(saying);
        assert_eq!(sorted.into_iter().collect::<Vec<_>>(), kept);
        for name in settings::KEPT {
            let flag = start.get_arguments().find(|flag| flag.get_long() == Some(name)).unwrap();
            assert!(matches!(flag.get_action(), ArgAction::Append), "{name}");
            let line = ["kminik", "start", &format!("--{name}=")];
            assert!(command.clone().try_get_matches_from(line).is_ok(), "{name}");
        }
    }
}
