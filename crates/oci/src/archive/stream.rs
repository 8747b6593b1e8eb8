//! Between async streams and the blocking tar code.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::ImageError;

const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks that may wait on either side.
const QUEUE: usize = 4;

/// An async source for code that blocks.
pub(crate) struct BlockingReader<R> {
    reader: R,
}

/// The blocking end.
pub(crate) struct Source {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    unread: Bytes,
}

impl<R: AsyncRead + Send + Unpin> BlockingReader<R> {
    pub(crate) fn new(reader: R) -> BlockingReader<R> {
        BlockingReader { reader }
    }

    /// Runs `work` on a thread of its own while feeding it. What `work` does not read stays unread.
    pub(crate) async fn drive<T: Send + 'static>(
        mut self,
        work: impl FnOnce(Source) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let (sender, chunks) = mpsc::channel(QUEUE);
        let worker = tokio::task::spawn_blocking(move || work(Source { chunks, unread: Bytes::new() }));
        loop {
            let mut buffer = bytes::BytesMut::with_capacity(CHUNK_BYTES);
            let read = self.reader.read_buf(&mut buffer).await;
            let chunk = match read {
                Ok(0) => break,
                Ok(_) => Ok(buffer.freeze()),
                Err(error) => Err(error),
            };
            let failed = chunk.is_err();
            // A worker that has ended reads no more; its result says why.
            if sender.send(chunk).await.is_err() || failed {
                break;
            }
        }
        drop(sender);
        worker.await.map_err(|_| ImageError::Cancelled)?
    }
}

impl Read for Source {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.unread.is_empty() {
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(chunk) => self.unread = chunk?,
            }
        }
        let length = buf.len().min(self.unread.len());
        self.unread.split_to(length).copy_to_slice(buf.get_mut(..length).unwrap_or_default());
        Ok(length)
    }
}

/// The blocking end of an async sink.
pub(crate) struct Sink {
    chunks: mpsc::Sender<Bytes>,
    buffer: Vec<u8>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        self.chunks.blocking_send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Runs `work` on a thread of its own while writing out what it produces.
pub(crate) async fn drive_writer<W: AsyncWrite + Send + Unpin>(
    mut writer: W,
    work: impl FnOnce(&mut Sink) -> Result<(), ImageError> + Send + 'static,
) -> Result<(), ImageError> {
    let (chunks, mut receiver) = mpsc::channel::<Bytes>(QUEUE);
    let worker = tokio::task::spawn_blocking(move || {
        let mut sink = Sink { chunks, buffer: Vec::with_capacity(CHUNK_BYTES) };
        work(&mut sink)?;
        sink.flush().map_err(ImageError::WriteArchive)
    });
    let mut written = Ok(());
    while let Some(chunk) = receiver.recv().await {
        written = writer.write_all(&chunk).await;
        if written.is_err() {
            break;
        }
    }
    drop(receiver);
    written.map_err(ImageError::WriteArchive)?;
    worker.await.map_err(|_| ImageError::Cancelled)??;
    writer.shutdown().await.map_err(ImageError::WriteArchive)
}
