//! What a release is made of: archive, checksums, Debian package, and the script that installs from mirrors.
//!
//! A small program stands for kminik, so that packing takes no minutes; that kminik itself is static is `architecture`'s.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Test;
use crate::support::{Output, command, eventually, run};

pub const TESTS: &[Test] = &[
    ("packing_twice_gives_the_same_bytes", reproducible),
    ("the_debian_package_is_installed_and_removed", debian),
    ("the_node_image_is_one_that_registries_take", node_image),
    ("the_script_installs_from_the_first_place_that_has_it", mirrors),
    ("the_script_goes_on_with_a_download_that_broke_off", resumed),
    ("the_script_installs_nothing_that_is_not_verified", unverified),
];

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

struct Release {
    work: tempfile::TempDir,
}

impl Release {
    fn new() -> Self {
        let work = tempfile::tempdir().unwrap();
        let source = "#include <stdio.h>\nint main(void) { puts(\"v9.9.9\"); return 0; }\n";
        let binary = work.path().join("kminik");
        let mut compile = command("gcc", &["-static", "-x", "c", "-", "-o", binary.to_str().unwrap()]);
        run(&mut compile, Some(source.as_bytes())).ok();
        let release = Self { work };
        release.pack("dist");
        release
    }

    fn pack(&self, out: &str) {
        let (binary, out) = (self.path("kminik"), self.path(out));
        let mut pack = command(root().join("dev/package"), &["--binary", binary.to_str().unwrap()]);
        pack.args(["--out".as_ref(), out.as_os_str()]).env("SOURCE_DATE_EPOCH", "1700000000");
        run(&mut pack, None).ok();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    fn archive(&self) -> String {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        format!("kminik-v{VERSION}-linux-{arch}.tar.gz")
    }

    /// A place with the release's layout below this directory.
    fn place(&self, name: &str) -> Server {
        let directory = self.path(name);
        for below in ["latest/download".to_owned(), format!("download/v{VERSION}")] {
            let target = directory.join(below);
            std::fs::create_dir_all(&target).unwrap();
            for file in [self.archive(), "SHA256SUMS".to_owned()] {
                std::fs::copy(self.path("dist").join(&file), target.join(&file)).unwrap();
            }
        }
        Server::new(directory)
    }

    /// The script with these places; a home without anything.
    fn install(&self, mirrors: &[&str], releases: &str, arguments: &[&str]) -> Output {
        let target = self.path("bin");
        let mut script = command("sh", &[root().join("install.sh").to_str().unwrap(), "--dir"]);
        script.arg(&target).args(arguments).env("KMINIK_RELEASES", releases).env("KMINIK_MIRRORS", mirrors.join(" "));
        run(&mut script, None)
    }

    #[track_caller]
    fn is_installed(&self, installed: bool) {
        let left: Vec<_> = std::fs::read_dir(self.path("bin")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, if installed { vec!["kminik"] } else { vec![] });
        if installed {
            assert_eq!(run(&mut command(self.path("bin/kminik"), &[]), None).ok(), "v9.9.9\n");
        }
    }
}

struct Server {
    process: Child,
    directory: PathBuf,
    url: String,
}

impl Server {
    fn new(directory: PathBuf) -> Self {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let mut process = Command::new("busybox");
        process.args(["httpd", "-f", "-p", &format!("127.0.0.1:{port}"), "-h"]).arg(&directory);
        let process = process.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the server", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Self { process, directory, url: format!("http://127.0.0.1:{port}") }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join("latest/download").join(name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An address where nobody listens.
fn nowhere() -> String {
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    format!("http://127.0.0.1:{port}")
}

fn reproducible() {
    let release = Release::new();
    let sums = |out: &str| std::fs::read_to_string(release.path(out).join("SHA256SUMS")).unwrap();
    release.pack("again");
    assert_eq!(sums("dist"), sums("again"));
    assert_eq!(sums("dist").lines().count(), 2);
    run(command("sha256sum", &["-c", "SHA256SUMS"]).current_dir(release.path("dist")), None).ok();
}

fn debian() {
    let release = Release::new();
    let package = std::fs::read_dir(release.path("dist")).unwrap().map(|entry| entry.unwrap().path());
    let package = package.into_iter().find(|path| path.extension().is_some_and(|e| e == "deb")).unwrap();
    let other = release.path("root");
    for directory in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"] {
        std::fs::create_dir_all(other.join(directory)).unwrap();
    }
    for file in ["status", "available"] {
        std::fs::write(other.join("var/lib/dpkg").join(file), "").unwrap();
    }
    let dpkg =
        |arguments: &[&str]| run(command("dpkg", &[&format!("--root={}", other.display())]).args(arguments), None).ok();
    dpkg(&["--install", package.to_str().unwrap()]);
    assert!(dpkg(&["--status", "kminik"]).contains(&format!("Version: {VERSION}")));
    let program = other.join("usr/bin/kminik");
    assert_eq!(run(&mut command(&program, &[]), None).ok(), "v9.9.9\n");
    for file in dpkg(&["--listfiles", "kminik"]).lines() {
        assert!(other.join(file.trim_start_matches('/')).exists(), "{file}");
    }
    assert!(other.join("usr/share/bash-completion/completions/kminik").exists());
    dpkg(&["--remove", "kminik"]);
    assert!(!program.exists() && !other.join("usr/share/doc/kminik").exists());
}

fn node_image() {
    let work = tempfile::tempdir().unwrap();
    let file = work.path().join("node.tar");
    let mut build = command(root().join("images/node/build"), &[crate::support::kminik_binary().to_str().unwrap()]);
    run(build.arg(&file), None).ok();
    let archive = format!("docker-archive:{}", file.display());
    let config = run(&mut command("skopeo", &["inspect", "--config", &archive]), None).ok();
    assert!(config.contains("\"/var\"") && config.contains("sha256:"), "{config}");
    let copy = work.path().join("copy");
    run(&mut command("skopeo", &["copy", "--quiet", &archive, &format!("oci:{}", copy.display())]), None).ok();
}

fn mirrors() {
    let release = Release::new();
    let (corrupt, good, upstream) = (release.place("corrupt"), release.place("good"), release.place("upstream"));
    std::fs::write(corrupt.file(&release.archive()), "not it").unwrap();
    let dead = nowhere();
    let told = release.install(&[&dead, &corrupt.url, &good.url], &upstream.url, &[]);
    release.is_installed(true);
    assert!(told.stderr.contains(&format!("from {} ...", good.url)), "{}", told.stderr);
    assert!(!told.stderr.contains("mirror's own"), "the releases answered: {}", told.stderr);
    // Over the one that is there, of a version, from the releases themselves.
    release.install(&[], &upstream.url, &["--version", VERSION]).ok();
    release.is_installed(true);
    // The mirror alone vouches for itself, which is told.
    let told = release.install(&[], &dead, &["--mirror", &good.url]);
    assert!(told.stderr.contains("The checksum is the mirror's own"), "{}", told.stderr);
    told.ok();
}

fn resumed() {
    let release = Release::new();
    let (short, whole) = (release.place("short"), release.place("whole"));
    let bytes = std::fs::read(short.file(&release.archive())).unwrap();
    std::fs::write(short.file(&release.archive()), &bytes[..bytes.len() / 2]).unwrap();
    // What one place has begun another ends, or begins anew: it is verified either way.
    release.install(&[&short.url], &whole.url, &[]).ok();
    release.is_installed(true);
}

fn unverified() {
    let release = Release::new();
    let (changed, without) = (release.place("changed"), release.place("without"));
    let bytes = std::fs::read(changed.file(&release.archive())).unwrap();
    std::fs::write(changed.file(&release.archive()), [&bytes[..], b"more"].concat()).unwrap();
    std::fs::write(without.file("SHA256SUMS"), "").unwrap();
    let told = release.install(&[&changed.url], &without.url, &[]).fails(1);
    assert!(told.contains(&changed.url) && told.contains(&without.url), "each place is told: {told}");
    assert!(told.contains("has the digest") && told.contains("names no archive"), "{told}");
    release.is_installed(false);
    release.install(&[], &nowhere(), &[]).fails(1);
    release.install(&[], &nowhere(), &["--version"]).fails(1);
    let mut pinned = command("sh", &[root().join("install.sh").to_str().unwrap()]);
    let good = release.place("good");
    pinned.args(["--dir".as_ref(), release.path("bin").as_os_str()]).env("KMINIK_RELEASES", &good.url);
    run(pinned.env("KMINIK_SHA256", "0".repeat(64)), None).fails(1);
    release.is_installed(false);
}
