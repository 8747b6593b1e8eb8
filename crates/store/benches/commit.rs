//! Commits per second by transactions in flight, beside what one fdatasync costs on the same disk.
//!
//! `cargo bench -p kminik-store --bench commit [-- DIRECTORY]`

#![allow(clippy::print_stdout, reason = "the figures are the output")]

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kminik_store::{EmbeddedStore, Op, Options, Store, Txn};

const RUN: Duration = Duration::from_secs(3);
const VALUE_BYTES: usize = 1500;
const KEYS: u64 = 2000;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let parent = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let parent = parent.map_or_else(std::env::temp_dir, Into::into);
    let directory = tempfile::tempdir_in(parent)?;
    println!("fdatasync of one 4 KiB page: {:?} (median of 500)", sync_cost(directory.path())?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for in_flight in [1, 16, 64] {
        let path = directory.path().join(format!("{in_flight}.redb"));
        let commits = runtime.block_on(commits(&path, in_flight))?;
        println!("{in_flight:3} in flight: {:7.0} commits/s", commits as f64 / RUN.as_secs_f64());
    }
    Ok(())
}

fn sync_cost(directory: &Path) -> std::io::Result<Duration> {
    let file = File::create(directory.join("sync"))?;
    file.write_all_at(&vec![0; 1 << 20], 0)?;
    file.sync_all()?;
    let mut costs = Vec::new();
    for page in 0..500 {
        file.write_all_at(&[1; 4096], page % 256 * 4096)?;
        let start = Instant::now();
        file.sync_data()?;
        costs.push(start.elapsed());
    }
    costs.sort();
    Ok(costs.get(costs.len() / 2).copied().unwrap_or_default())
}

async fn commits(path: &Path, in_flight: u64) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let store = Arc::new(EmbeddedStore::open(path, Options::default())?);
    let end = Instant::now() + RUN;
    let tasks: Vec<_> = (0..in_flight)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut commits = 0;
                while Instant::now() < end {
                    let key = format!("/objects/{}", (commits * in_flight + writer) % KEYS);
                    let op = Op::Put { key: key.into(), value: vec![b'v'; VALUE_BYTES].into(), ttl: None };
                    store.txn(Txn { compare: Vec::new(), ops: vec![op] }).await?;
                    commits += 1;
                }
                Ok::<_, kminik_store::StoreError>(commits)
            })
        })
        .collect();
    let mut total = 0;
    for task in tasks {
        total += task.await??;
    }
    store.close().await?;
    Ok(total)
}
