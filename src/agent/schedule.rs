//! A stop at a time: kept in a file beside the profile, so that it outlives this process, and carried out by the agent.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use kminik_base::atomic_file;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock;
use crate::env;
use crate::home::Home;
use crate::reason::{HOST_SAVE_PROFILE, MK_INTERNAL, OrFail, Outcome};

const FILE: &str = "stop.json";
const LIMIT_BYTES: u64 = 1 << 12;
/// After a stop that failed.
const RETRY: Duration = Duration::from_secs(60);

/// Seconds since the epoch.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Schedule {
    asked: i64,
    at: i64,
}

fn file(home: &Home, name: &str) -> PathBuf {
    home.profile(name).join(FILE)
}

/// Has the cluster stopped after `delay`, instead of when it was to be stopped before.
pub fn set(home: &Home, name: &str, delay: Duration) -> Outcome<()> {
    let asked = clock::now();
    let at = asked.saturating_add(i64::try_from(delay.as_secs()).unwrap_or(i64::MAX));
    let bytes = serde_json::to_vec(&Schedule { asked, at }).or_fail(&MK_INTERNAL, "cannot write the schedule")?;
    home.write(&file(home, name), &bytes, atomic_file::PUBLIC)
}

/// Has it stopped at no time; whether it was to be.
pub fn cancel(home: &Home, name: &str) -> Outcome<bool> {
    match std::fs::remove_file(file(home, name)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).or_fail(&HOST_SAVE_PROFILE, "cannot remove the schedule"),
    }
}

/// How long it is until the cluster is to be stopped.
pub fn left(home: &Home, name: &str) -> Option<Duration> {
    let seconds = load(home, name)?.at.saturating_sub(clock::now());
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn load(home: &Home, name: &str) -> Option<Schedule> {
    let bytes = atomic_file::read_optional(&file(home, name), LIMIT_BYTES).ok().flatten()?;
    serde_json::from_slice(&bytes).inspect_err(|error| tracing::warn!(%error, "the schedule is damaged")).ok()
}

/// Stops the cluster when it is time; looks at the file again when the agent is told to. Never returns.
pub(super) async fn follow(home: &Home, name: &str) {
    let Ok(mut told) = signal(SignalKind::hangup()) else { return std::future::pending().await };
    loop {
        let due = async {
            match load(home, name) {
                Some(schedule) => clock::until(schedule.at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = told.recv() => {}
            outcome = due => {
                let stopped = match outcome {
                    Ok(()) => stop(home, name).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = stopped {
                    tracing::error!(%error, "the cluster cannot be stopped as scheduled");
                }
                // It ends this process; if it cannot, it is tried again.
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// In a process of its own, for it ends this one.
async fn stop(home: &Home, name: &str) -> std::io::Result<()> {
    tracing::info!("stopping the cluster as scheduled");
    // Also where the file that this program came from has been replaced.
    let mut command = Command::new("/proc/self/exe");
    command.args(["-p", name, "stop"]).env(env::HOME, home.root()).current_dir("/").stdin(Stdio::null());
    let status = command.spawn()?.wait().await?;
    if status.success() { Ok(()) } else { Err(std::io::Error::other(format!("stop has ended with {status}"))) }
}
