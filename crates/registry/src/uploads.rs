//! Blobs that are on their way: each a file that grows, hashed as it does.
//!
//! ```text
//! start ─► append* ─► finish (digest checked) ─► blob
//!              └────► cancel, or collected when it was given up
//! ```
//! After a restart an upload goes on where its file ends.

use std::collections::HashMap;
use std::fs;
use std::io::SeekFrom;
use std::path::PathBuf;
use std::sync::Arc;

use kminik_oci::{Digest, Hasher};
use parking_lot::Mutex;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use uuid::Uuid;

use crate::body::{self, Incoming};
use crate::error::RegistryError;
use crate::name::Repository;
use crate::storage::{Storage, UPLOADS};

/// Uploads that are open at once.
const MAX_OPEN: usize = 256;
const READ_BYTES: usize = 256 * 1024;

type Shared = Arc<tokio::sync::Mutex<Session>>;

/// One upload; whoever holds its lock changes it.
pub(crate) struct Session {
    pub(crate) id: Uuid,
    repository: Repository,
    path: PathBuf,
    file: File,
    /// Bytes that are written and hashed; the file may have more, of a piece that broke off.
    pub(crate) at: u64,
    hasher: Hasher,
    /// It is a blob by now, or given up: the file is no upload's any more.
    ended: bool,
}

impl Session {
    /// Fails once it has ended: another request may have done so while this one waited.
    pub(crate) fn check(&self) -> Result<(), RegistryError> {
        if self.ended { Err(RegistryError::UnknownUpload) } else { Ok(()) }
    }
}

pub(crate) struct Uploads {
    storage: Storage,
    limit_bytes: u64,
    open: Mutex<HashMap<Uuid, Shared>>,
}

impl Uploads {
    /// `limit_bytes` is of one blob.
    pub(crate) fn new(storage: Storage, limit_bytes: u64) -> Self {
        Self { storage, limit_bytes, open: Mutex::default() }
    }

    pub(crate) async fn start(&self, repository: &Repository) -> Result<Shared, RegistryError> {
        {
            let mut open = self.open.lock();
            if open.len() >= MAX_OPEN {
                // What nobody works on is taken up again from its file.
                open.retain(|_, session| Arc::strong_count(session) > 1);
            }
            if open.len() >= MAX_OPEN {
                return Err(RegistryError::TooMany);
            }
        }
        let dir = self.storage.repository(repository).join(UPLOADS);
        fs::create_dir_all(&dir)?;
        let id = Uuid::new_v4();
        let path = dir.join(id.to_string());
        let file = File::options().create_new(true).read(true).write(true).open(&path).await?;
        Ok(self.keep(Session {
            id,
            repository: repository.clone(),
            path,
            file,
            at: 0,
            hasher: Hasher::default(),
            ended: false,
        }))
    }

    fn keep(&self, session: Session) -> Shared {
        let id = session.id;
        let session = Arc::new(tokio::sync::Mutex::new(session));
        self.open.lock().entry(id).or_insert(session).clone()
    }

    /// One that was started, by this process or an earlier one.
    pub(crate) async fn find(&self, repository: &Repository, id: &str) -> Result<Shared, RegistryError> {
        let id: Uuid = id.parse().map_err(|_| RegistryError::UnknownUpload)?;
        let path = self.storage.repository(repository).join(UPLOADS).join(id.to_string());
        if !path.exists() {
            self.open.lock().remove(&id);
            return Err(RegistryError::UnknownUpload);
        }
        if let Some(session) = self.open.lock().get(&id) {
            return Ok(session.clone());
        }
        let mut file = File::options().read(true).write(true).open(&path).await?;
        let (mut hasher, mut at, mut buffer) = (Hasher::default(), 0, vec![0; READ_BYTES]);
        loop {
            let length = file.read(&mut buffer).await?;
            if length == 0 {
                break;
            }
            hasher.update(buffer.get(..length).unwrap_or_default());
            at += length as u64;
        }
        Ok(self.keep(Session { id, repository: repository.clone(), path, file, at, hasher, ended: false }))
    }

    /// Adds the body, whose first byte is the `start`th of the blob if that is said. What came before it broke off stays.
    pub(crate) async fn append<B: Incoming>(
        &self,
        session: &mut Session,
        body: &mut B,
        start: Option<u64>,
    ) -> Result<(), RegistryError> {
        session.check()?;
        if start.is_some_and(|start| start != session.at) {
            return Err(RegistryError::OutOfOrder { at: session.at });
        }
        // What a broken piece has written beyond that is written again.
        session.file.seek(SeekFrom::Start(session.at)).await?;
        while let Some(data) = body::next(body).await? {
            if session.at + data.len() as u64 > self.limit_bytes {
                return Err(RegistryError::TooLarge { limit_bytes: self.limit_bytes });
            }
            session.file.write_all(&data).await?;
            session.hasher.update(&data);
            session.at += data.len() as u64;
        }
        session.file.flush().await?;
        Ok(())
    }

    /// Makes it a blob of its repository if it has this digest, and ends it in any case.
    pub(crate) async fn finish(&self, session: &mut Session, digest: &Digest) -> Result<(), RegistryError> {
        session.check()?;
        let found = session.hasher.clone().finish();
        if found != *digest {
            self.cancel(session)?;
            return Err(RegistryError::InvalidDigest(format!("the blob's digest is {found}, not {digest}")));
        }
        session.file.set_len(session.at).await?;
        session.file.sync_all().await?;
        self.open.lock().remove(&session.id);
        session.ended = true;
        let (storage, path) = (self.storage.clone(), session.path.clone());
        let (repository, digest) = (session.repository.clone(), digest.clone());
        let done = tokio::task::spawn_blocking(move || {
            fs::rename(&path, storage.blob_path(&digest))?;
            fs::File::open(storage.blobs())?.sync_all()?;
            storage.link_blob(&repository, &digest)
        });
        done.await.map_err(|error| RegistryError::Io(std::io::Error::other(error)))?
    }

    pub(crate) fn cancel(&self, session: &mut Session) -> Result<(), RegistryError> {
        session.check()?;
        session.ended = true;
        self.open.lock().remove(&session.id);
        match fs::remove_file(&session.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            outcome => Ok(outcome?),
        }
    }
}
