//! The images of a cluster: calls of its nodes' endpoints (`/kminik/v1/images…`) through `nodes/<name>/proxy`. What changes
//! images changes them on every node.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::ImportImageOptionsBuilder;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Node;
use kminik_oci::transfer::{RemoteStore, SHORT, TransferError};
use kminik_oci::{ImageError, ImageName, Outgoing, Progress, ResolverConfig};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio_util::io::StreamReader;

use super::bars::Bars;
use super::cache::{self, Cache};
use super::{client, registries, status};
use crate::addons::built_in_image;
use crate::drivers::{self, Machine, MachineState};
use crate::engine::Engine;
use crate::home::Home;
use crate::printer::{IMAGE, Printer};
use crate::profile::Profile;
use crate::reason::{
    Failure, GUEST_IMAGE_LIST, GUEST_IMAGE_LOAD, GUEST_IMAGE_PULL, GUEST_IMAGE_PUSH, GUEST_IMAGE_REMOVE,
    GUEST_IMAGE_SAVE, GUEST_IMAGE_TAG, HOST_PATH_MISSING, K8S_NOT_RESPONDING, MK_INTERNAL, OrFail, Outcome, Reason,
};
use crate::terminal;

/// minikube's shape of a listed image.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    pub id: String,
    pub repo_digests: Vec<String>,
    pub repo_tags: Vec<String>,
    /// Those of its names that no registry has given; not of minikube's shape.
    #[serde(default, skip_serializing)]
    local_tags: Vec<String>,
    /// Bytes, as text.
    pub size: String,
}

/// Where an image that is no archive is taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// A local Docker engine.
    pub daemon: bool,
    /// A registry.
    pub remote: bool,
    /// The registry is asked also for what the host's cache has.
    pub pull: bool,
}

/// A cluster's images.
pub struct Images {
    home: Home,
    profile: Profile,
    nodes: Vec<NodeImages>,
}

/// What is handed on to nodes that come, together; and how long that may take.
const HANDED_ON_BYTES: u64 = 16 << 30;
const HANDED_ON_WITHIN: Duration = Duration::from_secs(600);
/// How many machines the driver is asked about side by side.
const ASKED_AT_ONCE: usize = 8;

/// An image as a node has it under a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    tag: String,
    id: String,
    size_bytes: u64,
}

/// A node's images.
struct NodeImages {
    name: String,
    store: RemoteStore,
}

impl Deref for NodeImages {
    type Target = RemoteStore;

    fn deref(&self) -> &RemoteStore {
        &self.store
    }
}

impl NodeImages {
    async fn list(&self) -> Outcome<Vec<Image>> {
        let listed = self.json(self.request(Method::GET, "").timeout(SHORT)).await;
        listed.map_err(failed(&GUEST_IMAGE_LIST))
    }

    /// What no registry has given, by each of its names that none has.
    async fn loaded(&self) -> Outcome<BTreeSet<Named>> {
        let named = self.list().await?.into_iter().flat_map(|image| image.named(&image.local_tags));
        Ok(named.filter(|image| image.tag != built_in_image()).collect())
    }

    /// Those of these that it does not have.
    async fn lacks(&self, images: &BTreeSet<Named>) -> Outcome<BTreeSet<Named>> {
        let has = self.list().await?;
        let lacks = |image: &&Named| !has.iter().any(|own| own.id == image.id && own.repo_tags.contains(&image.tag));
        Ok(images.iter().filter(lacks).cloned().collect())
    }
}

impl Image {
    fn named(&self, tags: &[String]) -> Vec<Named> {
        let size_bytes = self.size.parse().unwrap_or_default();
        tags.iter().map(|tag| Named { tag: tag.clone(), id: self.id.clone(), size_bytes }).collect()
    }
}

/// Those that are handed on, the smallest first, and those for which no room is left.
fn within_bytes(images: BTreeSet<Named>, limit: u64) -> (Vec<Named>, Vec<Named>) {
    let mut images: Vec<Named> = images.into_iter().collect();
    images.sort_by_key(|image| image.size_bytes);
    let mut left = Some(limit);
    images.into_iter().partition(|image| {
        left = left.and_then(|left| left.checked_sub(image.size_bytes));
        left.is_some()
    })
}

impl Images {
    /// Asks the cluster for its nodes.
    ///
    /// # Errors
    /// `K8S_NOT_RESPONDING`, `GUEST_NOT_RUNNING`.
    pub async fn connect(home: &Home, profile: &str) -> Outcome<Self> {
        let profile = Profile::load(home, profile)?;
        let client = client::https(home, &profile)?;
        let all = format!("{}/api/v1/nodes", profile.api_url());
        let api = RemoteStore::new(client.clone(), all.clone(), None);
        let listed: List<Node> = match api.json(api.request(Method::GET, "").timeout(SHORT)).await {
            Ok(listed) => listed,
            Err(error) => {
                let unknown = || Failure::because(&K8S_NOT_RESPONDING, "the cluster does not answer", &error);
                return Err(client::silence(home, &profile).await.unwrap_or_else(unknown));
            }
        };
        let store = |node: Node| {
            let name = node.metadata.name.unwrap_or_default();
            let base = format!("{all}/{name}/proxy/kminik/v1/images");
            NodeImages { store: RemoteStore::new(client.clone(), base, None), name }
        };
        let down = down(home, &profile).await;
        let is_up =
            |node: &Node| status::is_ready(node) && !down.iter().any(|name| node.metadata.name.as_ref() == Some(name));
        let (ready, others): (Vec<Node>, Vec<Node>) = listed.items.into_iter().partition(is_up);
        // A node that is down holds nobody up; one that has just begun may answer all the same.
        let nodes: Vec<NodeImages> = if ready.is_empty() { others } else { ready }.into_iter().map(store).collect();
        if nodes.is_empty() {
            return Err(Failure::new(&K8S_NOT_RESPONDING, "the cluster has no node yet"));
        }
        Ok(Self { home: home.clone(), profile, nodes })
    }

    /// Of all nodes; an image that several have is one.
    pub async fn list(&self) -> Outcome<Vec<Image>> {
        let mut all: Vec<Image> = Vec::new();
        for node in &self.nodes {
            for image in node.list().await? {
                match all.iter_mut().find(|known| known.id == image.id) {
                    None => all.push(image),
                    Some(known) => {
                        let new = |known: &[String], more: Vec<String>| -> Vec<String> {
                            more.into_iter().filter(|name| !known.contains(name)).collect()
                        };
                        known.repo_tags.extend(new(&known.repo_tags, image.repo_tags));
                        known.repo_digests.extend(new(&known.repo_digests, image.repo_digests));
                    }
                }
            }
        }
        Ok(all)
    }

    /// Of the node of this name.
    ///
    /// # Errors
    /// `GUEST_IMAGE_LIST`, also for a node that does not answer.
    pub async fn list_of(&self, node: &str) -> Outcome<Vec<Image>> {
        match self.nodes.iter().find(|known| known.name == node) {
            Some(known) => known.list().await,
            None => Err(Failure::new(&GUEST_IMAGE_LIST, format!("the node {node} does not answer"))),
        }
    }

    /// Brings to these nodes, from those that have it, what was loaded while they were not there. What a registry has, they pull.
    /// What is too much to wait for is left to the user.
    ///
    /// # Errors
    /// `GUEST_IMAGE_LIST`, `GUEST_IMAGE_SAVE`, `GUEST_IMAGE_LOAD`, also for what was left out.
    pub async fn hand_on(&self, names: &[String], printer: &Printer) -> Outcome<()> {
        let (new, old): (Vec<&NodeImages>, Vec<&NodeImages>) =
            self.nodes.iter().partition(|node| names.contains(&node.name));
        let handed = tokio::time::timeout(HANDED_ON_WITHIN, self.hand_from(&old, &new, printer));
        let late = || format!("it took longer than {} s", HANDED_ON_WITHIN.as_secs());
        handed.await.unwrap_or_else(|_| Err(Failure::new(&GUEST_IMAGE_LOAD, late())))
    }

    async fn hand_from(&self, old: &[&NodeImages], new: &[&NodeImages], printer: &Printer) -> Outcome<()> {
        let mut loaded = BTreeSet::new();
        for node in old {
            loaded.extend(node.loaded().await?);
        }
        let cache = Cache::open(&self.home, Some(&self.profile))?;
        let mut lacking: Vec<(&NodeImages, BTreeSet<Named>)> = Vec::new();
        for node in new {
            lacking.push((node, node.lacks(&loaded).await?));
        }
        loaded.retain(|image| lacking.iter().any(|(_, lacks)| lacks.contains(image)));
        let (handed, left) = within_bytes(loaded, HANDED_ON_BYTES);
        // One after the other; each is read once, however many nodes lack it.
        for image in &handed {
            let nodes = lacking.iter().filter(|(_, lacks)| lacks.contains(image)).map(|(node, _)| *node);
            let nodes: Vec<&NodeImages> = nodes.collect();
            let tag = &image.tag;
            for node in &nodes {
                printer.info(IMAGE, &format!("Loading {tag} into {} ...", node.name));
            }
            let archive = self.archive(tag).await?.bytes_stream().map_err(std::io::Error::other);
            let scanned = cache.store().scan(StreamReader::new(archive.boxed())).await;
            let images = scanned.or_fail(&GUEST_IMAGE_LOAD, format_args!("cannot load {tag}"))?;
            send(&nodes, images, printer).await?;
        }
        if left.is_empty() {
            return Ok(());
        }
        let (gib, left) =
            (HANDED_ON_BYTES >> 30, left.into_iter().map(|image| image.tag).collect::<Vec<_>>().join(", "));
        Err(Failure::new(&GUEST_IMAGE_LOAD, format!("not more than {gib} GiB are handed on, without {left}")))
    }

    /// Whether an image of this name is there; what is no name is not.
    pub async fn has(&self, name: &str) -> Outcome<bool> {
        let Ok(name) = name.parse::<ImageName>() else { return Ok(false) };
        let wanted = name.tagged();
        let named = |image: Image| image.repo_tags.into_iter().any(|tag| Some(tag) == wanted);
        Ok(self.list().await?.into_iter().any(named))
    }

    /// Brings images to every node, of their layers those that it lacks: of an archive, `-` is stdin; of a local engine; of a
    /// registry. Without a word on which, a file that is there is an archive, and what is none is asked of the engine, then of
    /// the registry. The names it brought.
    ///
    /// # Errors
    /// `HOST_PATH_MISSING`, `GUEST_IMAGE_LOAD`, and what a pull fails with.
    pub async fn load(&self, what: &str, origin: Origin, printer: &Printer) -> Outcome<Vec<String>> {
        let cache = Cache::open(&self.home, Some(&self.profile))?;
        let images = outgoing(&cache, what, origin, printer).await?;
        send(&self.nodes.iter().collect::<Vec<_>>(), images, printer).await
    }

    /// Has every node pull the image, with the user's logins.
    pub async fn pull(&self, image: &str, printer: &Printer) -> Outcome<()> {
        let logins = self.logins(image, printer).await?;
        for node in &self.nodes {
            let bars = Bars::new(!printer.is_json());
            node.order("pull", image, logins.clone(), &bars).await.map_err(failed(&GUEST_IMAGE_PULL))?;
        }
        Ok(())
    }

    /// Has the first node that has the image push it to the registry of its name, with the user's logins.
    pub async fn push(&self, image: &str, printer: &Printer) -> Outcome<()> {
        let logins = self.logins(image, printer).await?;
        let push = async |node: &NodeImages| {
            let bars = Bars::new(!printer.is_json());
            node.order("push", image, logins.clone(), &bars).await
        };
        self.first(&GUEST_IMAGE_PUSH, push).await.map(drop)
    }

    /// What the first node says that has the image: what it refuses others would refuse too, who cannot be reached does not count
    /// where another has it.
    async fn first<T>(
        &self,
        reason: &'static Reason,
        ask: impl AsyncFn(&NodeImages) -> Result<T, TransferError>,
    ) -> Outcome<T> {
        let (mut absent, mut away) = (None, None);
        for node in &self.nodes {
            match ask(node).await {
                Ok(done) => return Ok(done),
                Err(error) if is_absent(&error) => absent = absent.or(Some(error)),
                Err(error @ TransferError::Connection(_)) => away = away.or(Some(error)),
                Err(error) => return Err(failed(reason)(error)),
            }
        }
        Err(away.or(absent).map_or_else(|| Failure::new(reason, "no node has the image"), failed(reason)))
    }

    async fn logins(&self, image: &str, printer: &Printer) -> Outcome<Vec<kminik_oci::Credential>> {
        let cache = Cache::view(&self.home, Some(&self.profile))?;
        let hosts = cache.store().hosts(image).or_fail(&GUEST_IMAGE_PULL, "no image is meant")?;
        registries::credentials(&hosts, printer).await
    }

    /// Removes it from the nodes that have it.
    pub async fn remove(&self, image: &str) -> Outcome<()> {
        self.each(Method::DELETE, &format!("?image={}", encode(image)), &GUEST_IMAGE_REMOVE).await
    }

    pub async fn tag(&self, source: &str, target: &str) -> Outcome<()> {
        let path = format!("/tag?source={}&target={}", encode(source), encode(target));
        self.each(Method::POST, &path, &GUEST_IMAGE_TAG).await
    }

    /// On every node; it is enough if one of them has the image.
    async fn each(&self, method: Method, path: &str, reason: &'static Reason) -> Outcome<()> {
        let (mut done, mut absent) = (false, None);
        for node in &self.nodes {
            match node.send(node.request(method.clone(), path).timeout(SHORT)).await {
                Ok(_) => done = true,
                Err(error) if is_absent(&error) => absent = Some(error),
                Err(error) => return Err(failed(reason)(error)),
            }
        }
        match absent {
            Some(error) if !done => Err(failed(reason)(error)),
            _ => Ok(()),
        }
    }

    /// Has the nodes' pulls go by this from now on.
    pub async fn configure(&self, config: &ResolverConfig) -> Outcome<()> {
        for node in &self.nodes {
            let body = serde_json::to_vec(config).or_fail(&MK_INTERNAL, "cannot write the configuration")?;
            let request = node.request(Method::PUT, "/config").body(body).timeout(SHORT);
            node.send(request).await.map_err(failed(&crate::reason::INET_MIRRORS))?;
        }
        Ok(())
    }

    /// The archive of an image, as it comes from the first node that has it.
    async fn archive(&self, image: &str) -> Outcome<reqwest::Response> {
        let path = format!("/save?image={}", encode(image));
        self.first(&GUEST_IMAGE_SAVE, async |node: &NodeImages| node.send(node.request(Method::GET, &path)).await).await
    }

    /// Streams an archive out; `-` is stdout. A file appears only when it is complete.
    pub async fn save(&self, image: &str, file: &Path) -> Outcome<()> {
        let mut body = self.archive(image).await?.bytes_stream();
        let cannot = format!("cannot write {}", file.display());
        // What is no plain file (a pipe, a terminal) is written to as it is.
        let special = file == Path::new("-") || file.metadata().is_ok_and(|metadata| !metadata.is_file());
        let draft = match special {
            true => None,
            false => Some(cache::draft(file).or_fail(&HOST_PATH_MISSING, &cannot)?),
        };
        let mut out = match &draft {
            Some(draft) => tokio::fs::File::from_std(draft.reopen().or_fail(&HOST_PATH_MISSING, &cannot)?),
            None if file == Path::new("-") => {
                terminal::stream(rustix::stdio::stdout()).or_fail(&HOST_PATH_MISSING, &cannot)?
            }
            None => tokio::fs::File::options().write(true).open(file).await.or_fail(&HOST_PATH_MISSING, &cannot)?,
        };
        while let Some(chunk) = body.next().await {
            let chunk = chunk.or_fail(&K8S_NOT_RESPONDING, "the archive broke off")?;
            out.write_all(&chunk).await.or_fail(&HOST_PATH_MISSING, &cannot)?;
        }
        out.flush().await.or_fail(&HOST_PATH_MISSING, &cannot)?;
        if let Some(draft) = draft {
            draft.persist(file).map_err(|error| error.error).or_fail(&HOST_PATH_MISSING, &cannot)?;
            self.home.give(file)?;
        }
        Ok(())
    }

    /// Gives the image to a local Docker engine.
    pub async fn save_to_daemon(&self, image: &str) -> Outcome<()> {
        let docker = Engine::connect(None).await?.docker;
        let body = self.archive(image).await?.bytes_stream().map_err(std::io::Error::other);
        let options = ImportImageOptionsBuilder::new().quiet(true).build();
        let loading = docker.import_image_stream(options, body, None);
        let said: Vec<_> = loading.try_collect().await.or_fail(&GUEST_IMAGE_SAVE, "the engine does not take it")?;
        match said.into_iter().find_map(|line| line.error_detail?.message) {
            Some(error) => Err(Failure::new(&GUEST_IMAGE_SAVE, format!("the engine does not take it: {error}"))),
            None => Ok(()),
        }
    }
}

/// Names of nodes whose machines do not run: for a while their Nodes say what was so before. A driver that does not tell says nothing.
async fn down(home: &Home, profile: &Profile) -> Vec<String> {
    let Ok(driver) = drivers::of(home, profile) else { return Vec::new() };
    let state = async |machine: Machine<'_>| (machine.node_name(), driver.state(machine).await);
    let states = futures::stream::iter(profile.machines().filter(|machine| machine.is_worker())).map(state);
    let ended = |(name, state): (String, Outcome<MachineState>)| async move {
        matches!(state, Ok(MachineState::Stopped | MachineState::Nonexistent)).then_some(name)
    };
    states.buffer_unordered(ASKED_AT_ONCE).filter_map(ended).collect().await
}

/// To each of these nodes, of their pieces those that it lacks; the names that they have there.
async fn send(nodes: &[&NodeImages], images: Outgoing, printer: &Printer) -> Outcome<Vec<String>> {
    let mut names = Vec::new();
    for node in nodes {
        let bars: Arc<dyn Progress> = Arc::new(Bars::new(!printer.is_json()));
        names = node.load(images.clone(), &bars).await.map_err(failed(&GUEST_IMAGE_LOAD))?;
    }
    Ok(names)
}

/// That a store does not have it.
fn is_absent(error: &TransferError) -> bool {
    matches!(error, TransferError::Refused { status: reqwest::StatusCode::NOT_FOUND, .. })
}

fn failed(reason: &'static Reason) -> impl FnOnce(TransferError) -> Failure {
    move |error| match &error {
        TransferError::Connection(_) => Failure::because(&K8S_NOT_RESPONDING, "the cluster does not answer", &error),
        TransferError::Answer => Failure::because(&MK_INTERNAL, "the node's answer cannot be read", &error),
        TransferError::Refused { text, .. } => Failure::new(reason, text.clone()),
        TransferError::Image(image) => Failure::new(cache::reason(image, reason), kminik_base::component::chain(image)),
    }
}

async fn outgoing(cache: &Cache, what: &str, origin: Origin, printer: &Printer) -> Outcome<Outgoing> {
    let store = cache.store();
    let refused = |error: ImageError| match error {
        ImageError::Io { step: "open", path, source } => {
            Failure::because(&HOST_PATH_MISSING, format_args!("cannot read {}", path.display()), &source)
        }
        other => Failure::because(&GUEST_IMAGE_LOAD, format_args!("cannot load {what}"), &other),
    };
    if what == "-" {
        let stdin = terminal::stream(rustix::stdio::stdin()).or_fail(&HOST_PATH_MISSING, "cannot read stdin")?;
        return store.scan(stdin).await.map_err(refused);
    }
    let explicit = origin.daemon || origin.remote || origin.pull;
    // What has the form of a path is none of an image.
    let is_path = Path::new(what).exists() || what.starts_with(['/', '.']) || what.ends_with(".tar");
    if !explicit && is_path {
        return store.scan_file(Path::new(what)).await.map_err(refused);
    }
    let mut engine_said = None;
    if origin.daemon || !explicit {
        match from_engine(cache, what).await {
            Ok(images) => return Ok(images),
            Err(failure) if origin.daemon && !origin.remote => return Err(failure),
            Err(failure) => engine_said = Some(failure),
        }
    }
    let fetched = if origin.pull { cache.fetch(what, printer).await } else { cache.have(what, printer).await };
    match (fetched, engine_said) {
        (Ok(_), _) => store.outgoing(&[what.to_owned()]).await.map_err(refused),
        (Err(failure), None) => Err(failure),
        (Err(failure), Some(engine)) => {
            let message = format!("{what} is no file; {engine}; {failure}");
            Err(Failure { message, ..failure })
        }
    }
}

async fn from_engine(cache: &Cache, name: &str) -> Outcome<Outgoing> {
    let docker = Engine::connect(None).await?.docker;
    let cannot = format!("the Docker engine does not give {name}");
    docker.inspect_image(name).await.or_fail(&GUEST_IMAGE_LOAD, &cannot)?;
    let archive = docker.export_image(name).map_err(std::io::Error::other);
    cache.store().scan(StreamReader::new(archive.boxed())).await.or_fail(&GUEST_IMAGE_LOAD, &cannot)
}

fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// `repository` and `tag` of a name.
pub fn split_tag(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "<none>"),
    }
}

/// 13 characters of the digest, as minikube's table.
pub fn short_id(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(13).collect()
}

/// Decimal units, three digits: `142MB`.
pub fn human_size(bytes: &str) -> String {
    let mut size = bytes.parse::<f64>().unwrap_or(0.0);
    for unit in ["B", "kB", "MB", "GB"] {
        if size < 1000.0 {
            let digits = if size >= 100.0 || unit == "B" {
                0
            } else if size >= 10.0 {
                1
            } else {
                2
            };
            return format!("{size:.digits$}{unit}");
        }
        size /= 1000.0;
    }
    format!("{size:.2}TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_on_is_bounded() {
        let image = |tag: &str, size_bytes| Named { tag: tag.into(), id: "i".into(), size_bytes };
        let (handed, left) = within_bytes([image("a", 7), image("b", 2), image("c", 4)].into(), 6);
        assert_eq!((handed, left), (vec![image("b", 2), image("c", 4)], vec![image("a", 7)]));
    }

    #[test]
    fn names_and_sizes() {
        assert_eq!(split_tag("localhost:5000/a/b:1"), ("localhost:5000/a/b", "1"));
        assert_eq!(split_tag("localhost:5000/a"), ("localhost:5000/a", "<none>"));
        assert_eq!(human_size("142000000"), "142MB");
        assert_eq!(human_size("1500"), "1.50kB");
        assert_eq!(human_size("12"), "12B");
    }
}
