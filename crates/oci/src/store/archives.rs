//! Images on their way in and out: archives, and what is sent to other stores.

use std::collections::BTreeSet;
use std::path::Path;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{ImageStore, blocking};
use crate::archive::{self, Outgoing};
use crate::image::Compression;
use crate::{Digest, ImageError, Query};

impl ImageStore {
    /// Writes images as an archive that is both a docker-save archive and an OCI layout.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] before anything is written.
    pub async fn export(&self, queries: &[String], writer: impl AsyncWrite + Send + Unpin) -> Result<(), ImageError> {
        let images = self.exported(queries).await?;
        let layout = self.inner.layout.clone();
        let using_layout = layout.clone();
        let using = blocking(move || using_layout.in_use()).await?;
        let written =
            archive::drive_writer(writer, move |writer| archive::export(&layout, &layout.index()?, &images, writer));
        let written = written.await;
        drop(using);
        written
    }

    /// Stored images, to be sent to another store.
    ///
    /// # Errors
    /// [`ImageError::NotFound`].
    pub async fn outgoing(&self, queries: &[String]) -> Result<Outgoing, ImageError> {
        let images = self.exported(queries).await?;
        self.blocking(move |inner| archive::outgoing(&inner.layout, &inner.layout.index()?, &images)).await
    }

    /// The images of an archive, found without taking them in.
    ///
    /// # Errors
    /// As [`ImageStore::import`].
    pub async fn scan(&self, reader: impl AsyncRead + Send + Unpin) -> Result<Outgoing, ImageError> {
        let (dir, platform) = (self.inner.layout.ingest(), self.inner.platform.clone());
        let reader = archive::BlockingReader::new(reader);
        reader.drive(move |source| archive::scan(&platform, archive::spool(source, &dir)?)).await
    }

    /// As [`ImageStore::scan`], of a file: one that is not compressed is read where it lies.
    ///
    /// # Errors
    /// As [`ImageStore::import`].
    pub async fn scan_file(&self, path: &Path) -> Result<Outgoing, ImageError> {
        let mut file = std::fs::File::open(path).map_err(ImageError::io("open", path))?;
        let mut head = [0; 4];
        let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
        let read = std::io::Read::read(&mut file, &mut head).map_err(ImageError::ReadArchive)?;
        let plain = Compression::of(head.get(..read).unwrap_or_default()) == Compression::None;
        if is_file && plain {
            let platform = self.inner.platform.clone();
            return blocking(move || archive::scan(&platform, file)).await;
        }
        if is_file {
            std::io::Seek::rewind(&mut file).map_err(ImageError::ReadArchive)?;
            return self.scan(tokio::fs::File::from_std(file)).await;
        }
        // Of a pipe what was read is gone from it.
        let head = std::io::Cursor::new(head.get(..read).unwrap_or_default().to_vec());
        self.scan(tokio::io::AsyncReadExt::chain(head, tokio::fs::File::from_std(file))).await
    }

    async fn exported(&self, queries: &[String]) -> Result<Vec<archive::Exported>, ImageError> {
        let mut images = Vec::new();
        for query in queries {
            let image = self.get(query).await?.ok_or_else(|| ImageError::NotFound(query.clone()))?;
            let names = match query.parse()? {
                Query::Name(name) => name.tagged().into_iter().collect(),
                Query::Id(_) => image.repo_tags.clone(),
            };
            images.push(archive::Exported { manifest: image.manifest, names });
        }
        Ok(images)
    }
}

impl Outgoing {
    /// Writes an OCI layout with all images but, of their pieces, only those of `wanted`.
    ///
    /// # Errors
    /// What the disk says of a piece; [`ImageError::WriteArchive`].
    pub async fn send(
        self,
        wanted: BTreeSet<Digest>,
        writer: impl AsyncWrite + Send + Unpin,
    ) -> Result<(), ImageError> {
        archive::drive_writer(writer, move |writer| self.write(&wanted, writer)).await
    }
}
