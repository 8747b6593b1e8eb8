//! A kubectl that fits the cluster: what an earlier call has fetched, one on PATH, else the published one, its digest checked.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kminik_base::atomic_file;
use kminik_oci::{Attempt, Digest, Files, ImageError, Limit};
use url::Url;

use super::registries::{self, Download};
use crate::clock;
use crate::env;
use crate::home::Home;
use crate::printer::{DOWNLOAD, Printer};
use crate::profile::Profile;
use crate::reason::{INET_KUBECTL, OrFail, Outcome};

/// Where kubectl is published.
const HOST: &str = "dl.k8s.io";
const CANNOT: &str = "kubectl cannot be fetched";
/// Of a note of ours.
const LIMIT_BYTES: u64 = 64 << 10;
/// Of what one place says the digest is.
const DIGEST: Limit = Limit { bytes: 4096, time: Duration::from_secs(10) };
/// Of the program, from one place.
const PROGRAM: Limit = Limit { bytes: 256 << 20, time: Duration::from_secs(600) };
/// For how long what was out of reach is not asked for again, where another is there to be used.
const AGAIN: Duration = Duration::from_secs(15 * 60);
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
    let old = installed.into_iter().next();
    let published = match Published::of(home, profile) {
        Ok(published) => published,
        Err(failure) => return old.map(|old| in_place(old, &failure, version, printer)).ok_or(failure),
    };
    let remembered = Remembered { file: cached.with_file_name("kubectl.unreachable"), places: published.key() };
    let failure = match remembered.recent().filter(|_| old.is_some()) {
        Some((minutes, cause)) => {
            let after = AGAIN.as_secs() / 60;
            format!(
                "kubectl {version} was out of reach {minutes} minutes ago, it is asked for again when {after} have passed: {cause}"
            )
        }
        None => {
            printer.info(DOWNLOAD, &format!("Downloading kubectl {version} ..."));
            match (published.fetch(home, &cached).await, &old) {
                (Ok(()), _) => return Ok(cached),
                (Err(failure), None) => return Err(failure),
                (Err(failure), Some(_)) => {
                    let cause = failure.to_string();
                    remembered.write(home, &cause);
                    cause
                }
            }
        }
    };
    Ok(old.map_or(cached, |old| in_place(old, &failure, version, printer)))
}

/// The program that is here in place of the one that would fit.
fn in_place(old: (PathBuf, String), why: &dyn std::fmt::Display, version: &str, printer: &Printer) -> PathBuf {
    let (own, theirs) = old;
    printer.warning(&format!(
        "{why}\n{} is used in its place. It is {theirs}: it may not understand Kubernetes {version}",
        own.display()
    ));
    own
}

/// That these places had none, when, and what they said.
struct Remembered {
    file: PathBuf,
    /// Of every place and every proxy, which may have passwords in them: with others it is tried at once.
    places: Digest,
}

impl Remembered {
    /// How many minutes ago that was and what was said, if it is not to be tried again yet.
    fn recent(&self) -> Option<(u64, String)> {
        let text = atomic_file::read_optional(&self.file, LIMIT_BYTES).ok()??;
        let text = String::from_utf8(text).ok()?;
        let mut lines = text.splitn(3, '\n');
        let (when, places, cause) = (lines.next()?, lines.next()?, lines.next()?);
        let age = u64::try_from(clock::now() - when.parse::<i64>().ok()?).ok()?;
        (places == self.places.to_string() && age < AGAIN.as_secs()).then(|| (age / 60, cause.to_owned()))
    }

    /// A note that cannot be written only costs time. Addresses of mirrors may have passwords in them.
    fn write(&self, home: &Home, cause: &str) {
        let text = format!("{}\n{}\n{cause}", clock::now(), self.places);
        let _ = home.write(&self.file, text.as_bytes(), atomic_file::SECRET);
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

/// What is published, and how it is asked for.
struct Published {
    program: Url,
    /// Its digest.
    sum: Url,
    files: Files,
}

impl Published {
    fn of(home: &Home, profile: &Profile) -> Outcome<Self> {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let url = format!("https://{HOST}/release/{}/bin/linux/{arch}/kubectl", profile.kubernetes_version);
        let parse = |url: &str| Url::parse(url).or_fail(&INET_KUBECTL, CANNOT);
        let (program, sum) = (parse(&url)?, parse(&format!("{url}.sha256"))?);
        Ok(Self { program, sum, files: registries::files(home, Some(profile))? })
    }

    /// Where it is looked for, by which way.
    fn key(&self) -> Digest {
        let places = self.files.places(&self.sum).into_iter().map(|place| place.url.to_string());
        Digest::of(places.chain(env::proxies()).collect::<Vec<_>>().join("\n").as_bytes())
    }

    async fn fetch(&self, home: &Home, to: &Path) -> Outcome<()> {
        let files = &self.files;
        let asked = files.places(&self.sum).into_iter().map(|place| async move {
            let started = Instant::now();
            let body = String::from_utf8(files.ask(&place, DIGEST).await?).unwrap_or_default();
            let hex = body.split_whitespace().next().unwrap_or_default().to_lowercase();
            let digest = format!("sha256:{hex}").parse().map_err(|_| Attempt {
                place: place.url.to_string(),
                wanted: "file".to_owned(),
                answer: "it serves no digest".to_owned(),
                elapsed: started.elapsed(),
            })?;
            Ok((place.url.host_str() == Some(HOST), digest))
        });
        let digest = agreed(futures::future::join_all(asked).await).or_fail(&INET_KUBECTL, CANNOT)?;
        let program =
            Download { urls: std::slice::from_ref(&self.program), digest: &digest, limit: PROGRAM, to, mode: 0o755 };
        program.run(home, files, &INET_KUBECTL, CANNOT).await.map(drop)
    }
}

/// The publisher's digest; where it does not answer, the one that all mirrors that do agree on. Each answer says whether it is the
/// publisher's.
fn agreed(answers: Vec<Result<(bool, Digest), Attempt>>) -> Result<Digest, ImageError> {
    let none = |name: &str, attempts| Err(ImageError::NoFile { name: name.to_owned(), attempts });
    let (mut told, mut attempts) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer {
            Ok(one) => told.push(one),
            Err(attempt) => attempts.push(attempt),
        }
    }
    if let Some((_, digest)) = told.iter().find(|(publisher, _)| *publisher) {
        return Ok(digest.clone());
    }
    match told.as_slice() {
        [] => none("its digest", attempts),
        [(_, first), rest @ ..] if rest.iter().all(|(_, digest)| digest == first) => Ok(first.clone()),
        _ => none("a digest that its mirrors agree on", attempts),
    }
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
        let (x, y) = (Digest::of(b"x"), Digest::of(b"y"));
        let says = |digests: [Option<&Digest>; 3]| {
            let answers = digests.iter().zip([false, false, true]).map(|(digest, publisher)| {
                digest.map(|digest| (publisher, digest.clone())).ok_or_else(|| Attempt {
                    place: "https://a".into(),
                    wanted: "file".into(),
                    answer: "down".into(),
                    elapsed: Duration::ZERO,
                })
            });
            agreed(answers.collect())
        };
        assert_eq!(says([Some(&x), None, Some(&y)]).unwrap(), y);
        assert_eq!(says([Some(&x), Some(&x), None]).unwrap(), x);
        assert!(says([Some(&x), Some(&y), None]).unwrap_err().to_string().contains("agree on"));
        assert!(says([None, None, None]).unwrap_err().to_string().contains("https://a"));
    }
}
