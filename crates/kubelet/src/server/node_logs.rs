//! `/logs/…`: the files below the node's log directory, and lists of them.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kminik_base::component::BoxError;
use tokio::io::AsyncReadExt;

use super::route::{Body, Failure, plain, text};

const CHUNK_BYTES: usize = 64 * 1024;

pub(super) async fn serve(dir: &Path, rest: &[&str]) -> Result<Response<Body>, Failure> {
    let path = find(dir.to_path_buf(), rest.iter().map(|part| (*part).to_owned()).collect()).await?;
    let metadata = tokio::fs::metadata(&path).await.map_err(|_| Failure::not_found())?;
    if metadata.is_dir() {
        return list(&path).await;
    }
    if !metadata.is_file() {
        return Err(Failure::not_found());
    }
    let file = tokio::fs::File::open(&path).await.map_err(|_| Failure::not_found())?;
    // What is written while it is sent belongs to the next request.
    let file = file.take(metadata.len());
    let chunks = futures::stream::unfold(file, |mut file| async move {
        let mut chunk = bytes::BytesMut::with_capacity(CHUNK_BYTES);
        match file.read_buf(&mut chunk).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(Frame::data(chunk.freeze())), file)),
            Err(error) => Some((Err(BoxError::from(error)), file)),
        }
    });
    Ok(plain(BodyExt::boxed_unsync(StreamBody::new(chunks.boxed()))))
}

/// The path, with links followed: whatever leads out of the directory is not there.
async fn find(dir: PathBuf, parts: Vec<String>) -> Result<PathBuf, Failure> {
    if parts.iter().any(|part| part == "..") {
        return Err(Failure::not_found());
    }
    let found = tokio::task::spawn_blocking(move || {
        let root = dir.canonicalize().ok()?;
        let path = root.join(parts.join("/")).canonicalize().ok()?;
        path.starts_with(&root).then_some(path)
    });
    found.await.ok().flatten().ok_or_else(Failure::not_found)
}

async fn list(path: &Path) -> Result<Response<Body>, Failure> {
    let mut names = Vec::new();
    let mut entries = tokio::fs::read_dir(path).await.map_err(|_| Failure::not_found())?;
    while let Ok(Some(entry)) = entries.next_entry().await {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_dir = entry.file_type().await.is_ok_and(|kind| kind.is_dir());
        names.push(if is_dir { format!("{name}/") } else { name });
    }
    names.sort();
    Ok(text(Bytes::from(names.into_iter().map(|name| name + "\n").collect::<String>())))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(dir: &Path, parts: &[&str]) -> Option<String> {
        let response = serve(dir, parts).await.ok()?;
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn files_lists_and_nothing_outside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pods")).unwrap();
        std::fs::write(dir.path().join("a.log"), "hello").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        assert_eq!(get(dir.path(), &[]).await.unwrap(), "a.log\nlink\npods/\n");
        assert_eq!(get(dir.path(), &["a.log"]).await.unwrap(), "hello");
        for outside in
            [&["link"][..], &["..", "etc", "passwd"], &["pods", "..", "..", "x"], &["/etc/passwd"], &["none"]]
        {
            assert_eq!(get(dir.path(), outside).await, None, "{outside:?}");
        }
    }
}
