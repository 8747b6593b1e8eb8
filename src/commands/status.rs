//! `kminik status`: minikube's fields, formats and exit bits.

use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use kminik_base::pki::Validity;
use serde_json::{Map, Value, json};

use super::{Context, Output};
use crate::ops::status::{self, Cluster, Status, Word};
use crate::ops::units;
use crate::printer::Printer;
use crate::profile::Profile;
use crate::reason::{Failure, MK_USAGE, Outcome};
use crate::template::render;
use crate::version;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(short = 'o', long, value_enum)]
    output: Option<Output>,
    /// Template of a node with the fields .Name .Host .Kubelet .APIServer .Kubeconfig .Worker .TimeToStop
    #[arg(short = 'f', long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// What is told, of each node or of the whole; of the whole as JSON only
    #[arg(short = 'l', long, value_enum, default_value_t)]
    layout: Layout,
    /// Only of this node
    #[arg(short = 'n', long, value_name = "NAME")]
    node: Option<String>,
    /// Tell it again and again, until Ctrl-C
    #[arg(
        short = 'w', long, value_name = "INTERVAL", num_args = 0..=1, require_equals = true,
        default_missing_value = "1s", value_parser = units::duration
    )]
    watch: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Layout {
    #[default]
    Nodes,
    Cluster,
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    if args.output.is_some() && args.format.is_some() {
        return Err(Failure::new(&MK_USAGE, "Cannot use both --output and --format options"));
    }
    if args.layout == Layout::Cluster && (args.output == Some(Output::Text) || args.format.is_some()) {
        return Err(Failure::new(&MK_USAGE, "--layout=cluster is JSON: use it with --output=json"));
    }
    loop {
        let profile = Profile::load(&context.home, &context.profile)?;
        let mut cluster = status::get(&context.home, &profile).await?;
        if let Some(name) = &args.node {
            let name = profile.machine(Some(name))?.name();
            cluster.nodes.retain(|node| node.name == name);
        }
        tell(&args, &profile, &cluster, printer)?;
        match args.watch {
            Some(interval) => tokio::time::sleep(interval.max(Duration::from_millis(100))).await,
            None => return Ok(ExitCode::from(cluster.exit_bits())),
        }
    }
}

fn tell(args: &Args, profile: &Profile, cluster: &Cluster, printer: &Printer) -> Outcome<()> {
    let time_to_stop = cluster.time_to_stop.map(units::go_duration).unwrap_or_default();
    match (args.layout, &args.format, args.output.unwrap_or_default()) {
        (Layout::Cluster, ..) => printer.data(&whole(profile, cluster).to_string()),
        (_, Some(template), _) => {
            for node in &cluster.nodes {
                printer.data(&formatted(template, node, &time_to_stop)?);
            }
        }
        (_, None, Output::Json) => {
            let mut nodes: Vec<Value> = cluster.nodes.iter().map(|node| object(node, &time_to_stop)).collect();
            let one = nodes.len() == 1;
            printer.data(&if one { nodes.remove(0) } else { Value::Array(nodes) }.to_string());
        }
        (_, None, Output::Text) => {
            for node in &cluster.nodes {
                printer.data(&text(node, &time_to_stop));
            }
            // The agent has them renewed by then: where none runs this is the only sign.
            let due = cluster.certificate.filter(|validity| !validity.is_fresh(crate::clock::now()));
            if let Some(end) = due.and_then(end) {
                printer.warning(&format!("The cluster's certificates end at {end}: 'kminik start' renews them"));
            }
            for note in &cluster.notes {
                printer.warning(note);
            }
            if cluster.nodes.iter().any(|node| !node.worker && node.kubeconfig == Word::Misconfigured) {
                printer.warning("Your kubectl is pointing to a stale or missing context.");
                printer
                    .warning(&format!("To fix the kubectl context, run 'kminik update-context -p {}'", profile.name));
            }
        }
    }
    Ok(())
}

/// The fields of one node as minikube names them, in its order.
fn fields(node: &Status, time_to_stop: &str) -> [(&'static str, String); 7] {
    let of_control_plane = |word: Word| if node.worker { Word::Irrelevant } else { word }.to_string();
    [
        ("Name", node.name.clone()),
        ("Host", node.host.to_string()),
        ("Kubelet", node.kubelet.to_string()),
        ("APIServer", of_control_plane(node.apiserver)),
        ("Kubeconfig", of_control_plane(node.kubeconfig)),
        ("Worker", node.worker.to_string()),
        ("TimeToStop", time_to_stop.to_owned()),
    ]
}

fn formatted(template: &str, node: &Status, time_to_stop: &str) -> Outcome<String> {
    let fields = fields(node, time_to_stop);
    render(template, &fields.each_ref().map(|(name, value)| (*name, value.as_str())))
}

fn object(node: &Status, time_to_stop: &str) -> Value {
    let fields = fields(node, time_to_stop).into_iter();
    let mut object: Map<String, Value> = fields.map(|(name, value)| (name.to_owned(), value.into())).collect();
    object.insert("Worker".to_owned(), node.worker.into());
    if time_to_stop.is_empty() {
        object.remove("TimeToStop");
    }
    object.into()
}

/// With an empty line after it.
fn text(node: &Status, time_to_stop: &str) -> String {
    let kind = if node.worker { "Worker" } else { "Control Plane" };
    let mut text = format!("{}\ntype: {kind}\nhost: {}\nkubelet: {}\n", node.name, node.host, node.kubelet);
    if !node.worker {
        text.push_str(&format!("apiserver: {}\nkubeconfig: {}\n", node.apiserver, node.kubeconfig));
    }
    if !time_to_stop.is_empty() {
        text.push_str(&format!("timeToStop: {time_to_stop}\n"));
    }
    text
}

/// minikube's numbers of a state, after HTTP's.
fn code(word: Word) -> u16 {
    match word {
        Word::Running | Word::Configured | Word::Ok => 200,
        Word::Nonexistent => 404,
        Word::Stopped => 405,
        Word::Paused => 418,
        Word::Error | Word::Misconfigured => 500,
        Word::Irrelevant | Word::Skipped => 520,
    }
}

/// The name of a number.
fn named(code: u16) -> &'static str {
    match code {
        200 => "OK",
        404 => "NotFound",
        405 => "Stopped",
        418 => "Paused",
        500 => "Error",
        _ => "Unknown",
    }
}

fn state(name: &str, word: Word) -> Map<String, Value> {
    let code = code(word);
    [("Name", json!(name)), ("StatusCode", json!(code)), ("StatusName", json!(named(code)))]
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}

fn end(validity: Validity) -> Option<Timestamp> {
    Timestamp::from_second(validity.not_after).ok()
}

/// `--layout=cluster`.
fn whole(profile: &Profile, cluster: &Cluster) -> Value {
    let mut object = state(&profile.name, cluster.word());
    if let Some(end) = cluster.certificate.and_then(end) {
        object.insert("CertExpiration".to_owned(), end.to_string().into());
    }
    object.insert("BinaryVersion".to_owned(), format!("v{}", version::KMINIK).into());
    if let Some(left) = cluster.time_to_stop {
        object.insert("TimeToStop".to_owned(), units::go_duration(left).into());
    }
    if let Some(first) = cluster.nodes.iter().find(|node| !node.worker) {
        object.insert("Components".to_owned(), json!({ "kubeconfig": state("kubeconfig", first.kubeconfig) }));
    }
    let nodes: Vec<Value> = cluster
        .nodes
        .iter()
        .map(|node| {
            let one = Cluster { nodes: vec![node.clone()], notes: Vec::new(), certificate: None, time_to_stop: None };
            let mut object = state(&node.name, one.word());
            let mut components = json!({ "kubelet": state("kubelet", node.kubelet) });
            if !node.worker {
                components["apiserver"] = state("apiserver", node.apiserver).into();
            }
            object.insert("Components".to_owned(), components);
            object.into()
        })
        .collect();
    object.insert("Nodes".to_owned(), nodes.into());
    object.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(worker: bool) -> Status {
        Status {
            name: "x".into(),
            worker,
            host: Word::Running,
            kubelet: Word::Stopped,
            apiserver: Word::Paused,
            kubeconfig: Word::Misconfigured,
        }
    }

    #[test]
    fn templates_and_bits() {
        assert_eq!(formatted("h={{.Host}} {{ .Name }} {{.TimeToStop}}", &node(false), "5s").unwrap(), "h=Running x 5s");
        assert!(formatted("{{.Nope}}", &node(false), "").is_err());
        assert_eq!((node(false).exit_bits(), node(true).exit_bits()), (6, 2));
    }

    #[test]
    fn shapes() {
        assert_eq!(
            text(&node(false), "5s"),
            "x\ntype: Control Plane\nhost: Running\nkubelet: Stopped\napiserver: Paused\nkubeconfig: Misconfigured\ntimeToStop: 5s\n"
        );
        assert_eq!(text(&node(true), ""), "x\ntype: Worker\nhost: Running\nkubelet: Stopped\n");
        assert_eq!(
            object(&node(true), ""),
            json!({"Name": "x", "Host": "Running", "Kubelet": "Stopped", "APIServer": "Irrelevant",
                "Kubeconfig": "Irrelevant", "Worker": true})
        );
    }
}
