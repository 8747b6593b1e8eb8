//! The addons of a cluster: listed, enabled, disabled, configured, and brought to what the profile says by every start.

pub mod open;
mod published;

use std::time::Duration;

use futures::future::join_all;
use kminik_base::component::chain;
use kminik_oci::{Attached, MirrorArgument};
use kube::Client;
use kube::core::DynamicObject;

pub use self::published::{check_manifests, take_in};
use super::image::Images;
use super::{client, registries};
use crate::addons::{
    self, Addon, Applier, ApplyError, Catalogue, Choice, Choices, Health, HostPort, Install, Record, State, Values,
};
use crate::agent;
use crate::drivers::{self, MachineState};
use crate::home::Home;
use crate::printer::{OPTION, Printer};
use crate::profile::{Lock, Profile};
use crate::reason::{
    Failure, K8S_NOT_RESPONDING, MK_ADDON_BROKEN, MK_ADDON_DISABLE, MK_ADDON_ENABLE, MK_INTERNAL, MK_USAGE, OrFail,
    Outcome,
};

/// How long an addon that was enabled may take until it works.
const WORKS: Duration = Duration::from_secs(360);
/// How long the list waits for a cluster to say how its addons are.
const ASK: Duration = Duration::from_secs(5);

/// All addons of this home.
pub fn catalogue(home: &Home) -> Outcome<Catalogue> {
    Catalogue::with_folders(&home.addons()).or_fail(&MK_INTERNAL, "an addon of kminik is damaged")
}

fn built_in() -> Outcome<Catalogue> {
    Catalogue::built_in().or_fail(&MK_INTERNAL, "an addon of kminik is damaged")
}

fn values(profile: &Profile) -> Values {
    Values::new(profile.networking.services, &profile.networking.domain).of_several(!profile.workers.is_empty())
}

/// # Errors
/// `MK_USAGE` for a name that is none.
pub fn find<'a>(catalogue: &'a Catalogue, name: &str) -> Outcome<&'a Addon> {
    catalogue.find(name).ok_or_else(|| {
        let problem = catalogue.problems.iter().find(|problem| problem.contains(&format!("/{name}:")));
        match problem {
            Some(problem) => Failure::new(&MK_ADDON_BROKEN, problem.clone()),
            None => Failure::new(&MK_USAGE, format!("'{name}' is not a valid kminik addon"))
                .advise("Run 'kminik addons list' for those there are."),
        }
    })
}

/// What a new cluster begins with.
pub fn at_first(install_addons: bool) -> Outcome<Choices> {
    if install_addons {
        return Ok(Choices::new());
    }
    let without = |addon: Addon| (addon.name, Choice { enabled: Some(false), ..Choice::default() });
    let defaults = built_in()?.addons.into_iter().filter(|addon| addon.definition.install == Install::Default);
    Ok(defaults.map(without).collect())
}

/// Notes in the profile that these are wanted; nothing is saved.
///
/// # Errors
/// `MK_USAGE` for a name that is none.
pub fn choose(home: &Home, profile: &mut Profile, names: &[String]) -> Outcome<()> {
    if names.is_empty() {
        return Ok(());
    }
    let catalogue = catalogue(home)?;
    for name in names.iter().filter(|name| !name.is_empty()) {
        find(&catalogue, name)?;
        profile.addons.entry(name.clone()).or_default().enabled = Some(true);
    }
    Ok(())
}

/// Those that the node itself applies when it starts.
pub fn of_the_node(profile: &Profile) -> Outcome<Vec<String>> {
    Ok(built_in()?.enabled(&profile.addons).filter(|addon| addon.is_the_nodes()).map(|a| a.name.clone()).collect())
}

/// What runs in kube-system, by name.
#[derive(Debug, Default)]
pub struct Workloads {
    pub deployments: Vec<String>,
    pub daemon_sets: Vec<String>,
}

/// What the node's own addons have.
pub fn workloads(profile: &Profile) -> Outcome<Workloads> {
    let catalogue = built_in()?;
    let mut all = Workloads::default();
    for addon in catalogue.enabled(&profile.addons).filter(|addon| addon.is_the_nodes()) {
        let none = Choice::default();
        let rendered = addon.render(profile.addons.get(&addon.name).unwrap_or(&none), &values(profile), &[]);
        let objects = rendered.or_fail(&MK_INTERNAL, "an addon of kminik is damaged")?;
        for (kind, names) in [("Deployment", &mut all.deployments), ("DaemonSet", &mut all.daemon_sets)] {
            let system = addons::of_kind(&objects, kind).filter(|(namespace, _)| *namespace == "kube-system");
            names.extend(system.map(|(_, name)| name.to_owned()));
        }
    }
    Ok(all)
}

/// `a, b, c`.
pub fn enabled_names(home: &Home, profile: &Profile) -> Outcome<String> {
    let catalogue = catalogue(home)?;
    Ok(catalogue.enabled(&profile.addons).map(|addon| addon.name.as_str()).collect::<Vec<_>>().join(", "))
}

/// What addons need to work without a network.
#[derive(Debug)]
pub struct Needs {
    pub images: Vec<String>,
    /// By what they are published as.
    pub manifests: Attached,
}

/// What the profile's addons (without a profile, a new cluster's) and `more` need; manifests that are not here are fetched.
///
/// # Errors
/// `MK_USAGE` for an addon that there is not; `INET_ADDON`, `MK_ADDON_BROKEN`.
pub async fn needs(home: &Home, profile: Option<&Profile>, more: &[String], printer: &Printer) -> Outcome<Needs> {
    let (catalogue, none) = (catalogue(home)?, Choices::new());
    let choices = profile.map_or(&none, |profile| &profile.addons);
    let mut wanted: Vec<&Addon> = catalogue.enabled(choices).collect();
    for name in more {
        let addon = find(&catalogue, name)?;
        if !wanted.iter().any(|known| known.name == addon.name) {
            wanted.push(addon);
        }
    }
    let mut needs = Needs { images: Vec::new(), manifests: Attached::new() };
    for addon in wanted {
        let mut choice = choices.get(&addon.name).cloned().unwrap_or_default();
        needs.images.extend(addon.images(&choice).map(|(_, _, used)| used));
        needs.manifests.extend(published::gather(home, profile, addon, &mut choice, printer).await?);
    }
    needs.images.sort();
    needs.images.dedup();
    Ok(needs)
}

/// Ports of this machine's loopback that lead to the profile's addons.
pub fn host_ports(home: &Home, profile: &Profile) -> Outcome<Vec<HostPort>> {
    let (catalogue, none) = (catalogue(home)?, Choice::default());
    let enabled = catalogue.enabled(&profile.addons);
    Ok(enabled.filter_map(|addon| addon.registry(profile.addons.get(&addon.name).unwrap_or(&none))).collect())
}

/// Where nodes pull from what is named after a port of the user's loopback that leads to a registry of the cluster.
pub fn mirrors(home: &Home, profile: &Profile) -> Outcome<Vec<MirrorArgument>> {
    let hosts = |port: HostPort| ["localhost", "127.0.0.1"].map(|host| format!("{host}:{}", port.port));
    let texts = host_ports(home, profile)?.into_iter().flat_map(hosts);
    let registry = profile.networking.registry();
    let parsed = texts.map(|host| MirrorArgument::parse(&format!("{host}=http://{registry}")));
    parsed.collect::<Result<_, _>>().or_fail(&MK_INTERNAL, "an addon's registry cannot be named")
}

/// The addon's objects. What it needs to fetch is fetched; digests that nobody has said before are noted in the profile.
async fn render(home: &Home, profile: &mut Profile, addon: &Addon, printer: &Printer) -> Outcome<Vec<DynamicObject>> {
    let mut choice = profile.addons.get(&addon.name).cloned().unwrap_or_default();
    let published = published::texts(home, Some(profile), addon, &mut choice, printer).await?;
    let rendered = addon.render(&choice, &values(profile), &published);
    if choice != Choice::default() {
        profile.addons.insert(addon.name.clone(), choice);
    }
    rendered.or_fail(&MK_ADDON_BROKEN, format_args!("a manifest of the addon {} cannot be used", addon.name))
}

/// A cluster whose addons can be changed.
struct Live {
    client: Client,
    applier: Applier,
}

impl Live {
    /// `None` if it does not run.
    ///
    /// # Errors
    /// `K8S_NOT_RESPONDING` if it runs and its API does not answer.
    async fn of(home: &Home, profile: &Profile) -> Outcome<Option<Self>> {
        if drivers::of(home, profile)?.state(profile.control_plane()).await? != MachineState::Running {
            return Ok(None);
        }
        let client = client::ready(home, profile).await?;
        Ok(Some(Self { applier: Applier::new(client.clone()), client }))
    }
}

/// What `list` shows of one addon.
#[derive(Debug)]
pub struct Row {
    pub name: String,
    pub maintainer: String,
    pub docs: String,
    /// `None` without a cluster.
    pub enabled: Option<bool>,
    /// Of an enabled one, if the cluster says.
    pub health: Option<Health>,
}

/// All addons, and how those of the cluster are.
pub async fn list(home: &Home, profile: &str, printer: &Printer) -> Outcome<Vec<Row>> {
    let (catalogue, profile) = (catalogue(home)?, Profile::load_optional(home, profile)?);
    for problem in &catalogue.problems {
        printer.warning(problem);
    }
    let mut rows: Vec<Row> = catalogue
        .addons
        .iter()
        .map(|addon| Row {
            name: addon.name.clone(),
            maintainer: addon.definition.maintainer.clone(),
            docs: addon.docs().to_owned(),
            enabled: profile.as_ref().map(|profile| addon.is_enabled(profile.addons.get(&addon.name))),
            health: None,
        })
        .collect();
    if let Some(profile) = &profile {
        // A cluster that does not say is shown without.
        let asked = tokio::time::timeout(ASK, look(home, profile, &mut rows)).await;
        if let Ok(Err(failure)) = asked {
            printer.warning(&format!("How the addons are is not known: {failure}"));
        }
    }
    Ok(rows)
}

async fn look(home: &Home, profile: &Profile, rows: &mut [Row]) -> Outcome<()> {
    let Some(live) = Live::of(home, profile).await? else { return Ok(()) };
    let records = live.applier.all().await.or_fail(&K8S_NOT_RESPONDING, "the cluster does not answer")?;
    let enabled = rows.iter_mut().filter(|row| row.enabled == Some(true));
    let looks = enabled.map(|row| {
        let record = records.iter().find(|(name, _)| *name == row.name).map(|(_, record)| record);
        let client = &live.client;
        async move {
            row.health = match record {
                Some(record) if record.digest.is_some() => addons::health(client, record).await.ok(),
                _ => Some(Health::Unhealthy(vec!["not applied".to_owned()])),
            };
        }
    });
    join_all(looks).await;
    Ok(())
}

/// `NAME=VALUE` of `--images` and `--registries`.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub images: Vec<(String, String)>,
    pub registries: Vec<(String, String)>,
}

impl Overrides {
    /// Into the choice; names that the addon does not have are told and ignored, as minikube does.
    fn note(&self, addon: &Addon, choice: &mut Choice, printer: &Printer) {
        let known = &addon.definition.images;
        let told = |what: &str, name: &str| {
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            printer.warning(&format!("{what} {name} is ignored: the images of {} are {names}", addon.name));
        };
        for (name, image) in &self.images {
            if known.contains_key(name) {
                choice.images.insert(name.clone(), image.clone());
                // The reference is meant as it is given.
                choice.registries.remove(name);
            } else {
                told("--images", name);
            }
        }
        for (name, registry) in &self.registries {
            if known.contains_key(name) {
                choice.registries.insert(name.clone(), registry.clone());
            } else {
                told("--registries", name);
            }
        }
    }
}

/// Enables the addon: at once in a running cluster, else with its next start. Whether it was at once.
///
/// # Errors
/// `GUEST_NOT_FOUND`, `MK_USAGE`, `MK_ADDON_BROKEN`, `MK_ADDON_ENABLE`.
pub async fn enable(home: &Home, profile: &str, name: &str, overrides: &Overrides, printer: &Printer) -> Outcome<bool> {
    let (_lock, mut profile) = locked(home, profile).await?;
    let catalogue = catalogue(home)?;
    let addon = find(&catalogue, name)?;
    let choice = profile.addons.entry(name.to_owned()).or_default();
    choice.enabled = Some(true);
    overrides.note(addon, choice, printer);
    if addon.is_third_party() {
        printer.warning(&format!(
            "{name} is a 3rd party addon and is not maintained or verified by kminik: enable it at your own risk"
        ));
    }
    for (_, _, used) in addon.images(choice) {
        printer.info(OPTION, &format!("Using image {used}"));
    }
    bring(home, &mut profile, addon, printer).await
}

/// Saves the profile and brings the addon as the profile now has it into the cluster, if it runs, and waits until it works.
async fn bring(home: &Home, profile: &mut Profile, addon: &Addon, printer: &Printer) -> Outcome<bool> {
    // Before anything is kept: what cannot be applied at all is not wanted at the next start.
    let objects = render(home, profile, addon, printer).await?;
    profile.save(home)?;
    let Some(live) = Live::of(home, profile).await? else { return Ok(false) };
    tell(home, profile, addon).await?;
    let record = live.applier.apply(&addon.name, &objects).await;
    let record = record.or_fail(&MK_ADDON_ENABLE, format_args!("the addon {} cannot be enabled", addon.name))?;
    printer.info(crate::printer::VERIFY, &format!("Verifying {} addon...", addon.name));
    match tokio::time::timeout(WORKS, addons::healthy(&live.client, &record)).await {
        Ok(Ok(Health::Healthy)) => Ok(true),
        Ok(Ok(Health::Unhealthy(amiss))) => Err(not_working(&addon.name, &amiss.join(", "))),
        Ok(Err(error)) => Err(not_working(&addon.name, &chain(&error))),
        Err(_) => {
            let amiss = match addons::health(&live.client, &record).await {
                Ok(Health::Unhealthy(amiss)) => amiss.join(", "),
                _ => "the cluster does not answer".to_owned(),
            };
            Err(not_working(&addon.name, &format!("waited {} s in vain: {amiss}", WORKS.as_secs())))
        }
    }
}

/// Tells agent and nodes where the registry is now, if the addon is one.
async fn tell(home: &Home, profile: &Profile, addon: &Addon) -> Outcome<()> {
    if addon.definition.registry.is_none() {
        return Ok(());
    }
    agent::reload(&home.profile(&profile.name)).await;
    let config = registries::on_node(home, profile)?;
    Images::connect(home, &profile.name).await?.configure(&config).await
}

fn not_working(addon: &str, why: &str) -> Failure {
    Failure::new(&MK_ADDON_ENABLE, format!("the addon {addon} is enabled but does not work: {why}"))
}

/// Disables the addon: what it has made is gone when this returns, if the cluster runs, else with its next start.
///
/// # Errors
/// `GUEST_NOT_FOUND`, `MK_USAGE`, `MK_ADDON_DISABLE`.
pub async fn disable(home: &Home, profile: &str, name: &str) -> Outcome<bool> {
    let (_lock, mut profile) = locked(home, profile).await?;
    // The folder of one that is enabled may be gone.
    let catalogue = catalogue(home)?;
    if !profile.addons.contains_key(name) {
        find(&catalogue, name)?;
    }
    profile.addons.entry(name.to_owned()).or_default().enabled = Some(false);
    profile.save(home)?;
    let Some(live) = Live::of(home, &profile).await? else { return Ok(false) };
    let removed = live.applier.remove(name).await;
    removed.or_fail(&MK_ADDON_DISABLE, format_args!("the addon {name} cannot be disabled"))?;
    if let Some(addon) = catalogue.find(name) {
        tell(home, &profile, addon).await?;
    }
    Ok(true)
}

/// Keeps these settings and, if the addon is enabled, brings them into the cluster.
///
/// # Errors
/// `MK_USAGE` for a setting or value that is none, and whatever [`enable`] fails with.
pub async fn configure(
    home: &Home,
    profile: &str,
    name: &str,
    settings: &[(String, String)],
    printer: &Printer,
) -> Outcome<()> {
    let (_lock, mut profile) = locked(home, profile).await?;
    let catalogue = catalogue(home)?;
    let addon = find(&catalogue, name)?;
    let choice = profile.addons.entry(name.to_owned()).or_default();
    for (key, value) in settings {
        let Some(setting) = addon.definition.settings.get(key) else {
            let known: Vec<&str> = addon.definition.settings.keys().map(String::as_str).collect();
            let message = format!("{name} has no setting {key:?}, but: {}", known.join(", "));
            return Err(Failure::new(&MK_USAGE, message));
        };
        setting.kind.check(value).map_err(|wanted| {
            Failure::new(&MK_USAGE, format!("{key}={value}: {wanted} is wanted ({})", setting.title))
        })?;
        choice.settings.insert(key.clone(), value.clone());
    }
    if addon.is_enabled(profile.addons.get(name)) {
        bring(home, &mut profile, addon, printer).await.map(drop)
    } else {
        profile.save(home)
    }
}

async fn locked(home: &Home, profile: &str) -> Outcome<(Lock, Profile)> {
    // Before the lock, which would make a file for a cluster that there is not.
    Profile::load(home, profile)?;
    let lock = Lock::acquire(home, profile).await?;
    Ok((lock, Profile::load(home, profile)?))
}

/// What a start finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The node was started a moment ago and applies its own addons.
    JustStarted,
    Running,
}

/// Brings the cluster's addons to what the profile says; those that were changed and are to work.
///
/// # Errors
/// If the cluster cannot be asked. An addon that cannot be applied or removed is a warning.
pub async fn reconcile(
    home: &Home,
    profile: &Profile,
    client: &Client,
    freshness: Freshness,
    printer: &Printer,
) -> Outcome<Vec<(String, Record)>> {
    let (catalogue, applier) = (catalogue(home)?, Applier::new(client.clone()));
    let records = applier.all().await.or_fail(&K8S_NOT_RESPONDING, "the cluster does not say which addons it has")?;
    let (mut applied, mut kept) = (Vec::new(), profile.clone());
    for addon in catalogue.enabled(&profile.addons) {
        let record = records.iter().find(|(name, _)| *name == addon.name).map(|(_, record)| record);
        let at_work = freshness == Freshness::JustStarted && addon.is_the_nodes();
        if at_work && record.is_none_or(|record| record.state == State::Enabled) {
            continue;
        }
        match apply(home, &applier, addon, record, &mut kept, printer).await {
            Ok(None) => {}
            Ok(Some(record)) => applied.push((addon.name.clone(), record)),
            Err(failure) => printer.warning(&failure.to_string()),
        }
    }
    if kept.addons != profile.addons {
        // What start has noted meanwhile stays.
        Profile { addons: kept.addons, ..Profile::load(home, &profile.name)? }.save(home)?;
    }
    let wanted = |name: &str| match catalogue.find(name) {
        Some(addon) => addon.is_enabled(profile.addons.get(name)),
        // Without its folder it is as it was, until it is disabled.
        None => profile.addons.get(name).is_some_and(|choice| choice.enabled == Some(true)),
    };
    for (name, record) in &records {
        if record.state == State::Enabled && !wanted(name) {
            let removed: Result<(), ApplyError> = applier.remove(name).await;
            if let Err(error) = removed {
                printer.warning(&format!("The addon {name} cannot be disabled: {}", chain(&error)));
            }
        }
    }
    Ok(applied)
}

/// `None` if it stands there as it is.
async fn apply(
    home: &Home,
    applier: &Applier,
    addon: &Addon,
    record: Option<&Record>,
    profile: &mut Profile,
    printer: &Printer,
) -> Outcome<Option<Record>> {
    let objects = render(home, profile, addon, printer).await?;
    let digest = addons::digest(&objects);
    if record.is_some_and(|record| record.state == State::Enabled && record.digest.as_ref() == Some(&digest)) {
        return Ok(None);
    }
    let applied = applier.apply(&addon.name, &objects).await;
    applied.map(Some).or_fail(&MK_ADDON_ENABLE, format_args!("the addon {} cannot be enabled", addon.name))
}

/// Waits until these work; what does not is a warning.
pub async fn wait(client: &Client, applied: &[(String, Record)], bound: Duration, printer: &Printer) {
    let waits = applied.iter().map(|(name, record)| async move {
        match tokio::time::timeout(bound, addons::healthy(client, record)).await {
            Ok(Ok(Health::Healthy)) => {}
            Ok(Ok(Health::Unhealthy(amiss))) => printer.warning(&not_working(name, &amiss.join(", ")).to_string()),
            Ok(Err(error)) => printer.warning(&not_working(name, &chain(&error)).to_string()),
            Err(_) => printer.warning(&not_working(name, "'kminik addons list' says more").to_string()),
        }
    });
    join_all(waits).await;
}
