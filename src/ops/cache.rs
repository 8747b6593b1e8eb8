//! The host's cache of images, which all clusters share: base images come from it, nodes ask it before any registry, bundles
//! are made of it and unpacked into it.

use std::path::Path;

use kminik_oci::{Attached, Digest, Image, ImageError, ImageStore, ResolverConfig, Room, Summary, Usage};

use super::bars::Bars;
use super::registries;
use crate::home::Home;
use crate::printer::Printer;
use crate::profile::Profile;
use crate::reason::{
    Failure, GUEST_ARCHITECTURE, GUEST_CACHE_LOAD, HOST_PATH_MISSING, INET_CACHE, INET_PULL, MK_USAGE, OrFail, Outcome,
    RSRC_INSUFFICIENT_STORAGE, Reason,
};
use crate::settings::Settings;

const CANNOT_OPEN: &str = "cannot open the image cache";

/// The cache, open.
pub struct Cache {
    home: Home,
    store: ImageStore,
}

/// What a bundle holds.
#[derive(Debug)]
pub struct Bundle {
    pub images: Vec<String>,
    pub size_bytes: u64,
    /// Of the whole file.
    pub digest: Digest,
}

impl Cache {
    /// Opens it; what it lacks is pulled by the profile's registries.
    pub fn open(home: &Home, profile: Option<&Profile>) -> Outcome<Self> {
        Self::with(home, registries::on_host(home, profile)?)
    }

    /// Opens it to serve what it has.
    pub fn open_local(home: &Home) -> Outcome<Self> {
        Self::with(home, ResolverConfig::default())
    }

    /// As [`Cache::open`] for who only looks, so that the home need not be writable.
    pub fn view(home: &Home, profile: Option<&Profile>) -> Outcome<Self> {
        let store = ImageStore::view(&home.image_cache(), registries::on_host(home, profile)?);
        Ok(Self { home: home.clone(), store: store.or_fail(&INET_CACHE, CANNOT_OPEN)? })
    }

    fn with(home: &Home, config: ResolverConfig) -> Outcome<Self> {
        let dir = home.image_cache();
        home.make_dir(&dir)?;
        let store = ImageStore::open(&dir, config).or_fail(&INET_CACHE, CANNOT_OPEN)?;
        // Commands that need no root use it too.
        home.give_tree(&dir)?;
        let of = home.clone();
        store.limit_to(move || room(&of));
        Ok(Self { home: home.clone(), store })
    }

    pub fn store(&self) -> &ImageStore {
        &self.store
    }

    /// The image, fetched unless it is here.
    ///
    /// # Errors
    /// `GUEST_ARCHITECTURE`, or `INET_PULL` with what every place said.
    pub async fn have(&self, name: &str, printer: &Printer) -> Outcome<Image> {
        match self.store.get(name).await.or_fail(&INET_CACHE, "cannot read the image cache")? {
            Some(image) => Ok(image),
            None => self.fetch(name, printer).await,
        }
    }

    /// The image as it is called now, whether one of that name is here or not.
    ///
    /// # Errors
    /// As [`Cache::have`].
    pub async fn fetch(&self, name: &str, printer: &Printer) -> Outcome<Image> {
        let bars = Bars::new(!printer.is_json());
        let hosts = self.store.hosts(name).or_fail(&INET_PULL, format_args!("cannot pull {name}"))?;
        let logins = registries::credentials(&hosts, printer).await?;
        self.store.pull(name, &logins, &bars).await.map_err(|error| match reason(&error, &INET_PULL) {
            reason if reason == &GUEST_ARCHITECTURE => Failure::new(reason, error.to_string()),
            reason => Failure::because(reason, format_args!("cannot pull {name}"), &error),
        })
    }

    /// How much it has, and may have.
    pub async fn usage(&self) -> Outcome<(Usage, Option<u64>)> {
        let usage = self.store.usage().await.or_fail(&INET_CACHE, "cannot read the image cache")?;
        Ok((usage, Settings::load(&self.home)?.cache_limit()))
    }

    pub async fn list(&self) -> Outcome<Vec<Summary>> {
        self.store.list().await.or_fail(&INET_CACHE, "cannot read the image cache")
    }

    /// Removes an image's name, and what nothing else needs.
    pub async fn remove(&self, name: &str) -> Outcome<()> {
        self.store.remove(name).await.or_fail(&INET_CACHE, format_args!("cannot remove {name} from the cache"))
    }

    /// Writes images, fetched unless they are here, and files that go with them into one file that [`Cache::load`] reads anywhere. It
    /// appears only when it is complete.
    ///
    /// # Errors
    /// As [`Cache::have`]; `HOST_PATH_MISSING` for a file that cannot be written.
    pub async fn bundle(
        &self,
        names: &[String],
        attached: Attached,
        file: &Path,
        printer: &Printer,
    ) -> Outcome<Bundle> {
        // However small the cache is to be, it has all of them until they are written.
        let held = self.store.hold().await.or_fail(&INET_CACHE, "cannot read the image cache")?;
        for name in names {
            self.have(name, printer).await?;
        }
        let mut images = self.store.outgoing(names).await.or_fail(&INET_CACHE, "cannot read the image cache")?;
        images.attach(attached).or_fail(&MK_USAGE, "the bundle could not be loaded again")?;
        let all: std::collections::BTreeSet<Digest> = images.digests().into_iter().collect();
        let (size_bytes, listed) = (images.size_of(&all), images.names());
        let cannot = format!("cannot write {}", file.display());
        let draft = draft(file).or_fail(&HOST_PATH_MISSING, &cannot)?;
        let out = tokio::fs::File::from_std(draft.reopen().or_fail(&HOST_PATH_MISSING, &cannot)?);
        images.send(all, out).await.or_fail(&HOST_PATH_MISSING, &cannot)?;
        drop(held);
        self.store.make_room().await;
        draft.as_file().sync_all().or_fail(&HOST_PATH_MISSING, &cannot)?;
        let digest = digest(draft.path()).or_fail(&HOST_PATH_MISSING, &cannot)?;
        draft.persist(file).map_err(|error| error.error).or_fail(&HOST_PATH_MISSING, &cannot)?;
        self.home.give(file)?;
        Ok(Bundle { images: listed, size_bytes, digest })
    }

    /// Takes in a bundle, or any archive of images; every blob has been checked when it counts. The images it brought, and the files
    /// that went with them, which have to be `wanted`.
    ///
    /// # Errors
    /// `HOST_PATH_MISSING`; `GUEST_CACHE_LOAD` for a file that is damaged or no bundle: then nothing of it counts.
    pub async fn load(
        &self,
        file: &Path,
        wanted: impl FnOnce(&Attached) -> Result<(), String> + Send + 'static,
        printer: &Printer,
    ) -> Outcome<(Vec<Image>, Attached)> {
        let cannot = format!("cannot load {}", file.display());
        let archive = tokio::fs::File::open(file).await.or_fail(&HOST_PATH_MISSING, &cannot)?;
        let images = self.store.import_bundle(archive, wanted).await;
        let (images, attached) =
            images.map_err(|error| Failure::because(reason(&error, &GUEST_CACHE_LOAD), &cannot, &error))?;
        for name in self.store.make_room().await {
            printer.warning(&format!("{name} was removed to make room: 'kminik cache info' shows the limit"));
        }
        Ok((images, attached))
    }
}

/// What the cache is kept within: the user's limit, but for what clusters are made of.
fn room(home: &Home) -> Option<Room> {
    let bytes = Settings::load(home).unwrap_or_default().cache_limit()?;
    let profiles = Profile::names(home).into_iter().filter_map(|name| Profile::load(home, &name).ok());
    Some(Room { bytes, kept: profiles.filter_map(|profile| profile.base_image).collect() })
}

/// A file beside `path` that can take its place.
pub fn draft(path: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::Builder::new().prefix(".kminik-").tempfile_in(directory)
}

fn digest(path: &Path) -> std::io::Result<Digest> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = kminik_oci::Hasher::default();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = std::io::Read::read(&mut file, &mut buffer)?;
        if read == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..read]);
    }
}

/// What an error of the cache is told as, where it is none of its own.
pub fn reason(error: &ImageError, other: &'static Reason) -> &'static Reason {
    match error {
        ImageError::WrongPlatform { .. } => &GUEST_ARCHITECTURE,
        ImageError::NoSpace(_) => &RSRC_INSUFFICIENT_STORAGE,
        _ => other,
    }
}
