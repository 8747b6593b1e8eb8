//! The user's mirrors: shown, tried, changed; changes reach the nodes of running clusters at once.

use std::path::Path;

use kminik_base::atomic_file::PUBLIC;
use kminik_oci::mirrors::{MirrorsFile, Presets, Resolver, Source};
use kminik_oci::{Experience, ImageName, ImageStore, Limit, MirrorArgument, Probe};
use serde::Serialize;
use url::Url;

use super::cache::Cache;
use super::image::Images;
use super::registries;
use crate::agent;
use crate::drivers::{self, MachineState};
use crate::home::Home;
use crate::printer::{CHECK, Printer};
use crate::profile::{Lock, Profile};
use crate::reason::{Failure, INET_BAD_MIRROR, INET_MIRRORS, INET_REPO, MK_USAGE, OrFail, Outcome};

/// Of a list of mirrors that is fetched.
const LIST: Limit = Limit { bytes: 1 << 20, time: std::time::Duration::from_secs(30) };
/// A registry that presets and the user name nothing for is tried with this.
const ANY_IMAGE: &str = "library/busybox:latest";

/// One place of a registry, or of a host of files.
#[derive(Debug, Serialize)]
pub struct Row {
    pub registry: String,
    pub place: String,
    pub source: Source,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known: Option<String>,
    /// What pulls of this machine have made of it.
    #[serde(flatten)]
    pub experience: Experience,
}

/// [`Cache::open`] for who notes anything, or [`Cache::view`].
type Open = fn(&Home, Option<&Profile>) -> Outcome<Cache>;

/// What is looked at: a profile's registries, or with `country` those of a preset.
pub struct View {
    store: ImageStore,
    presets: Presets,
}

impl View {
    /// `open` is the cache's, whose store has what is known of places.
    ///
    /// # Errors
    /// What makes the lists unusable.
    pub fn new(home: &Home, profile: &str, country: Option<String>, open: Open) -> Outcome<Self> {
        let profile = Profile::load_optional(home, profile)?;
        let store = open(home, profile.as_ref())?.store().clone();
        let mut config = store.config();
        let unusable = "the mirrors cannot be used";
        let presets = Presets::parse(config.presets_toml.as_deref()).or_fail(&INET_BAD_MIRROR, unusable)?;
        if let Some(country) = country {
            presets.of(&country).or_fail(&INET_REPO, "no such list")?;
            config.country = Some(country);
            store.reconfigure(config).or_fail(&INET_BAD_MIRROR, unusable)?;
        }
        Ok(Self { store, presets })
    }

    fn resolver(&self) -> Outcome<Resolver> {
        Resolver::new(&self.store.config()).or_fail(&INET_BAD_MIRROR, "the mirrors cannot be used")
    }

    /// Every registry of which anything is known.
    fn registries(&self) -> Outcome<Vec<String>> {
        let resolver = self.resolver()?;
        let mut names = resolver.registries();
        names.extend(self.presets.probe.keys().cloned());
        names.retain(|name| !resolver.file_hosts().any(|host| host == name));
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn image(&self, registry: &str) -> String {
        let image = self.presets.probe.get(registry).map_or(ANY_IMAGE, String::as_str);
        format!("{registry}/{image}")
    }

    /// All places, in the order in which they are preferred.
    pub fn list(&self) -> Outcome<Vec<Row>> {
        let mut rows = Vec::new();
        let unusable = "the list of mirrors cannot be used";
        for registry in self.registries()? {
            let image = self.image(&registry);
            let name: ImageName = image.parse().or_fail(&INET_BAD_MIRROR, unusable)?;
            for (place, experience) in self.store.places(&image).or_fail(&INET_BAD_MIRROR, unusable)? {
                let shown = place.label();
                // Without the image, where the place keeps it under its own name.
                let shown = shown.strip_suffix(&format!("/{}", name.repository())).unwrap_or(&shown).to_owned();
                let registry = registry.clone();
                rows.push(Row { registry, place: shown, source: place.source, known: place.known, experience });
            }
        }
        let resolver = self.resolver()?;
        for host in resolver.file_hosts() {
            let url = Url::parse(&format!("https://{host}/")).or_fail(&INET_BAD_MIRROR, unusable)?;
            rows.extend(resolver.files(&url).into_iter().map(|place| Row {
                registry: host.to_owned(),
                place: place.url.as_str().trim_end_matches('/').to_owned(),
                source: place.source,
                known: place.known,
                experience: Experience::default(),
            }));
        }
        Ok(rows)
    }

    /// Tries all places with these images, or with one of each registry.
    ///
    /// # Errors
    /// `MK_USAGE` for what is no image's name; what a place says is in its row.
    pub async fn test(&self, images: &[String], printer: &Printer) -> Outcome<Vec<Probe>> {
        let texts: Vec<String> = match images {
            [] => {
                // Of others nobody knows an image to ask for; a host of files has none.
                let known = self.registries()?.into_iter().filter(|name| self.presets.probe.contains_key(name));
                known.map(|registry| self.image(&registry)).collect()
            }
            given => given.to_vec(),
        };
        let mut hosts = Vec::new();
        for text in &texts {
            hosts.extend(self.store.hosts(text).or_fail(&MK_USAGE, "nothing can be tried")?);
        }
        hosts.sort();
        hosts.dedup();
        let logins = registries::credentials(&hosts, printer).await?;
        self.store.probe(&texts, &logins).await.or_fail(&INET_BAD_MIRROR, "the mirrors cannot be used")
    }
}

/// `INET_MIRRORS` if for one of the images no place works.
pub fn verdict(rows: &[Probe]) -> Outcome<()> {
    let works = |row: &&Probe| row.error.is_none() && row.agrees == Some(true);
    let served: Vec<&str> = rows.iter().filter(works).map(|row| row.image.as_str()).collect();
    let mut lost: Vec<&str> =
        rows.iter().map(|row| row.image.as_str()).filter(|image| !served.contains(image)).collect();
    lost.dedup();
    if lost.is_empty() {
        return Ok(());
    }
    Err(Failure::new(&INET_MIRRORS, format!("no place serves {}", lost.join(", "))).advise(
        "Check the network and the names, or add a place that is near: kminik mirror add REGISTRY=URL, or kminik start --image-mirror-country=cn",
    ))
}

/// A change of `mirrors.toml`.
pub enum Change {
    Add { mirror: MirrorArgument, first: bool },
    Remove(MirrorArgument),
    Order(Vec<MirrorArgument>),
}

/// Makes the change in the file, then in the nodes.
///
/// # Errors
/// `INET_BAD_MIRROR` for a mirror that is not there, or a file that cannot be read.
pub async fn change(home: &Home, change: Change, printer: &Printer) -> Outcome<()> {
    let lock = Lock::of_home(home).await?;
    let text = registries::mirrors_file(home)?.unwrap_or_default();
    let mut file = MirrorsFile::parse(&text).or_fail(&INET_BAD_MIRROR, "cannot change the mirrors")?;
    let absent = |mirror: &MirrorArgument| {
        let name = home.mirrors_file();
        Failure::new(&INET_BAD_MIRROR, format!("{} is not in {}", mirror.shown(), name.display()))
            .advise("Run 'kminik mirror list': only those from mirrors.toml can be changed here.")
    };
    match &change {
        Change::Add { mirror, first } => {
            if !file.add(mirror, *first) {
                printer.info(CHECK, &format!("{} is there already", mirror.shown()));
                return Ok(());
            }
        }
        Change::Remove(mirror) => {
            if !file.remove(mirror) {
                return Err(absent(mirror));
            }
        }
        Change::Order(mirrors) => {
            let registry = mirrors.first().map(MirrorArgument::registry).unwrap_or_default();
            if mirrors.iter().any(|mirror| mirror.registry() != registry) {
                return Err(Failure::new(&MK_USAGE, "mirrors of one registry can be put in order, not of several"));
            }
            file.order(registry, mirrors).map_err(absent)?;
        }
    }
    // A mirror's login may be in it.
    home.write(&home.mirrors_file(), file.text().as_bytes(), kminik_base::atomic_file::SECRET)?;
    drop(lock);
    tell_nodes(home, printer).await
}

/// Replaces the list of mirrors by country: with that of a file or URL, or, given nothing, of where the list in use says that
/// newer ones are. Its month.
///
/// # Errors
/// `INET_MIRRORS` if it cannot be fetched, `INET_BAD_MIRROR` if it is no such list: then the old one stays.
pub async fn update(home: &Home, from: Option<&str>, printer: &Printer) -> Outcome<String> {
    let old = Presets::parse(registries::presets_file(home)?.as_deref());
    let unusable = "the list cannot be used";
    let from = match (from, old) {
        (Some(from), _) => from.to_owned(),
        (None, old) => old.or_fail(&INET_BAD_MIRROR, unusable)?.source.ok_or_else(|| {
            Failure::new(&MK_USAGE, "the list in use does not say where newer ones are: name a file or URL")
        })?,
    };
    let text = if from.starts_with("https://") || from.starts_with("http://") {
        fetch(home, &from).await?
    } else {
        let text = std::fs::read_to_string(Path::new(&from));
        text.or_fail(&crate::reason::HOST_PATH_MISSING, format_args!("cannot read {from}"))?
    };
    let presets = Presets::parse(Some(&text)).or_fail(&INET_BAD_MIRROR, format_args!("{from}: {unusable}"))?;
    home.write(&home.presets_file(), text.as_bytes(), PUBLIC)?;
    tell_nodes(home, printer).await?;
    Ok(presets.updated)
}

/// Goes back to the list that is built in.
pub async fn forget_update(home: &Home, printer: &Printer) -> Outcome<()> {
    match std::fs::remove_file(home.presets_file()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).or_fail(&crate::reason::HOST_HOME_PERMISSION, "cannot remove the list")
        }
        _ => tell_nodes(home, printer).await,
    }
}

async fn fetch(home: &Home, url: &str) -> Outcome<String> {
    let cannot = || format!("cannot fetch {url}");
    let place = Url::parse(url).or_fail(&MK_USAGE, cannot())?;
    let body = registries::files(home, None)?.ask(&place.into(), LIST).await;
    let body = body.map_err(|attempt| Failure::new(&INET_MIRRORS, format!("cannot fetch {attempt}")))?;
    String::from_utf8(body).or_fail(&INET_BAD_MIRROR, cannot())
}

/// Has the nodes of all running clusters go by the home's lists as they are now.
async fn tell_nodes(home: &Home, printer: &Printer) -> Outcome<()> {
    for name in Profile::names(home) {
        match tell(home, &name).await {
            Ok(true) => printer.info(CHECK, &format!("The nodes of \"{name}\" go by it")),
            Ok(false) => {}
            Err(failure) => {
                printer.warning(&format!("The nodes of \"{name}\" do not go by it before their next start: {failure}"));
            }
        }
    }
    Ok(())
}

/// False if the cluster does not run.
async fn tell(home: &Home, name: &str) -> Outcome<bool> {
    let profile = Profile::load(home, name)?;
    if drivers::of(home, &profile)?.state(profile.control_plane()).await? != MachineState::Running {
        return Ok(false);
    }
    let _lock = Lock::acquire(home, name).await?;
    // What is written below is what is there now, not before the lock.
    let mut profile = Profile::load(home, name)?;
    let known = profile.loopback.clone();
    profile.serve_loopback(registries::loopback_ports(home, &profile)?);
    if profile.loopback != known {
        profile.save(home)?;
        agent::reload(&home.profile(name)).await;
    }
    let config = registries::on_node(home, &profile)?;
    Images::connect(home, name).await?.configure(&config).await?;
    Ok(true)
}
