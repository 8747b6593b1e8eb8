//! A kubectl that fits the cluster: what an earlier call has fetched, one on PATH, else the published one, its digest checked.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use kminik_oci::Digest;
use kminik_oci::mirrors::Presets;

use super::registries;
use crate::env;
use crate::home::Home;
use crate::printer::{DOWNLOAD, Printer};
use crate::profile::Profile;
use crate::reason::{Failure, INET_BAD_MIRROR, INET_KUBECTL, OrFail, Outcome};

/// Where kubectl is published.
const HOST: &str = "dl.k8s.io";
const LIMIT_BYTES: usize = 256 << 20;
const DIGEST_LIMIT_BYTES: usize = 4096;
/// Bound on a digest of one place.
const DIGEST: Duration = Duration::from_secs(10);
/// Bound on the whole of one place's file.
const FILE: Duration = Duration::from_secs(600);
/// How many minor versions a client may be away from its server.
const SKEW: u32 = 1;

/// The program to run. One on PATH that does not fit is used, with a warning, where none that does can be fetched.
///
/// # Errors
/// `INET_KUBECTL` with what every place said, if none is here and none can be fetched.
pub async fn find(home: &Home, profile: &Profile, printer: &Printer) -> Outcome<PathBuf> {
    let version = &profile.kubernetes_version;
    let cached = home.binary_cache(version).join("kubectl");
    if cached.exists() {
        return Ok(cached);
    }
    let installed = on_path();
    if let Some((own, _)) = installed.iter().find(|(_, theirs)| fits(theirs, version)) {
        return Ok(own.clone());
    }
    printer.info(DOWNLOAD, &format!("Downloading kubectl {version} ..."));
    match (fetch(home, profile, &cached).await, installed.into_iter().next()) {
        (Ok(()), _) => Ok(cached),
        (Err(failure), Some((own, theirs))) => {
            let told = format!("{failure}\n{} is {theirs}: it may not understand Kubernetes {version}", own.display());
            printer.warning(&told);
            Ok(own)
        }
        (Err(failure), None) => Err(failure),
    }
}

/// The programs called kubectl on PATH with their versions; never this one, which may be called so too.
fn on_path() -> Vec<(PathBuf, String)> {
    let own = std::env::current_exe().and_then(std::fs::canonicalize).ok();
    let programs = env::path().into_iter().map(|directory| directory.join("kubectl"));
    let others = programs.filter(|program| {
        let found = std::fs::canonicalize(program).ok();
        found.is_some() && found != own
    });
    others.filter_map(|program| Some((program.clone(), version_of(&program)?))).collect()
}

/// What the program says it is.
fn version_of(program: &Path) -> Option<String> {
    let mut command = Command::new(program);
    command.args(["version", "--client", "-o", "json"]).stdin(Stdio::null()).stderr(Stdio::null());
    // A kubeconfig that it cannot read is not what is asked for.
    let output = command.env(env::KUBECONFIG, "/dev/null").output().ok()?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    answer["clientVersion"]["gitVersion"].as_str().map(str::to_owned)
}

/// Upstream's rule: the same major version, and minor versions one apart at most.
fn fits(client: &str, server: &str) -> bool {
    let numbers = |version: &str| -> Option<(u32, u32)> {
        let mut parts = version.trim_start_matches('v').split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    match (numbers(client), numbers(server)) {
        (Some((a, client)), Some((b, server))) => a == b && client.abs_diff(server) <= SKEW,
        _ => false,
    }
}

async fn fetch(home: &Home, profile: &Profile, to: &Path) -> Outcome<()> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let path = format!("release/{}/bin/linux/{arch}/kubectl", profile.kubernetes_version);
    let places = places(home, profile)?;
    let roots = registries::on_host(home, Some(profile))?.extra_roots_pem;
    let get = async |url: String, limit: usize, bound: Duration| match tokio::time::timeout(
        bound,
        kminik_oci::get(&url, roots.as_deref(), limit),
    )
    .await
    {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => Err(kminik_base::component::chain(&error)),
        Err(_) => Err(format!("{url}: no answer within {} s", bound.as_secs())),
    };
    let asked = places.iter().map(async |place| {
        let body = get(format!("{place}/{path}.sha256"), DIGEST_LIMIT_BYTES, DIGEST).await?;
        let text = String::from_utf8_lossy(&body);
        Ok(text.split_whitespace().next().unwrap_or_default().to_lowercase())
    });
    let answers: Vec<Result<String, String>> = futures::future::join_all(asked).await;
    let mut tried: Vec<String> = answers.iter().filter_map(|answer| answer.as_ref().err().cloned()).collect();
    let digest = agreed(&places, &answers).map_err(|why| failure(&why, &tried))?;
    for (place, answer) in places.iter().zip(&answers) {
        if answer.as_ref().ok() != Some(&digest) {
            continue;
        }
        match get(format!("{place}/{path}"), LIMIT_BYTES, FILE).await {
            Ok(bytes) => {
                let found = Digest::of(&bytes);
                if found.hex() != digest {
                    tried.push(format!("{place}: its file has the digest {found}, not sha256:{digest}"));
                    continue;
                }
                home.write(to, &bytes, 0o755)?;
                let mode = std::fs::Permissions::from_mode(0o755);
                return std::fs::set_permissions(to, mode).or_fail(&INET_KUBECTL, "cannot make kubectl executable");
            }
            Err(error) => tried.push(error),
        }
    }
    Err(failure("no place has the file", &tried))
}

fn failure(why: &str, tried: &[String]) -> Failure {
    let listed: String = tried.iter().map(|one| format!("\n  - {one}")).collect();
    Failure::new(&INET_KUBECTL, format!("kubectl cannot be fetched: {why}{listed}"))
}

/// The publisher's digest; where it does not answer, the one that all mirrors that do agree on.
fn agreed(places: &[String], answers: &[Result<String, String>]) -> Result<String, String> {
    let is_digest = |text: &&String| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let good = places.iter().zip(answers).filter_map(|(place, answer)| {
        answer.as_ref().ok().filter(is_digest).map(|digest| (place.as_str(), digest.as_str()))
    });
    let good: BTreeMap<&str, &str> = good.collect();
    if let Some(digest) = good.get(official().as_str()) {
        return Ok((*digest).to_owned());
    }
    let mut digests: Vec<&str> = good.values().copied().collect();
    digests.sort_unstable();
    digests.dedup();
    match digests.as_slice() {
        [] => Err("no place tells its digest".to_owned()),
        [one] => Ok((*one).to_owned()),
        _ => Err("its publisher does not answer, and mirrors disagree on its digest".to_owned()),
    }
}

fn official() -> String {
    format!("https://{HOST}")
}

/// Mirrors of the profile's country, then the publisher.
fn places(home: &Home, profile: &Profile) -> Outcome<Vec<String>> {
    let presets = Presets::parse(registries::presets_file(home)?.as_deref());
    let presets = presets.or_fail(&INET_BAD_MIRROR, "the mirrors cannot be used")?;
    let country = profile.registries.country.as_deref();
    let mut places = presets.files_of(country, HOST);
    places.push(official());
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_one_apart_fit() {
        for good in ["v1.34.9", "v1.35.0", "1.36.1", "v1.35.0+k3s1"] {
            assert!(fits(good, "v1.35.0"), "{good}");
        }
        for bad in ["v1.33.0", "v1.37.0", "v2.35.0", "nonsense", ""] {
            assert!(!fits(bad, "v1.35.0"), "{bad}");
        }
    }

    #[test]
    fn the_publishers_digest_counts_before_mirrors() {
        let places = ["https://a".to_owned(), "https://b".to_owned(), official()];
        let (x, y) = ("a".repeat(64), "b".repeat(64));
        let says =
            |digests: [Option<&String>; 3]| digests.map(|d| d.cloned().ok_or_else(|| "down".to_owned())).to_vec();
        assert_eq!(agreed(&places, &says([Some(&x), None, Some(&y)])).unwrap(), y);
        assert_eq!(agreed(&places, &says([Some(&x), Some(&x), None])).unwrap(), x);
        assert!(agreed(&places, &says([Some(&x), Some(&y), None])).unwrap_err().contains("disagree"));
        assert!(agreed(&places, &says([None, Some(&"short".to_owned()), None])).is_err());
    }
}
