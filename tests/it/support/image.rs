//! Images built here from Debian's packages, as docker-save archives.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::run::{command, run};

/// An archive on disk.
pub struct ImageTar {
    file: tempfile::NamedTempFile,
}

impl ImageTar {
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

/// Everything of busybox behind `/bin/sh`.
pub fn busybox() -> ImageTar {
    image("docker.io/library/busybox:latest", of_busybox(), &["/bin/sh"])
}

/// An image that has this text in `/says`, and sleeps.
pub fn says(name: &str, text: &str) -> ImageTar {
    let mut layer = of_busybox();
    layer.text("/says", text);
    image(name, layer, &["/bin/sleep", "3600"])
}

fn of_busybox() -> Layer {
    let mut layer = Layer::default();
    layer.file("/bin/busybox", Path::new("/bin/busybox"));
    for applet in [
        "sh", "cat", "echo", "sleep", "ls", "wget", "nc", "nslookup", "ping", "hostname", "id", "env", "true", "false",
        "dd", "head", "tail", "grep", "mkdir", "touch", "rm", "stty", "tar", "httpd", "ip", "mount", "ps", "kill",
        "stat", "vi", "date", "seq", "trap", "md5sum", "wc", "mknod",
    ] {
        layer.link(&format!("/bin/{applet}"), "busybox");
    }
    layer.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n");
    layer.text("/etc/group", "root:x:0:\nnobody:x:65534:\n");
    layer.directory("/tmp", 0o1777);
    layer
}

/// Debian's etcd, which is one program.
pub fn etcd() -> ImageTar {
    let mut layer = Layer::default();
    let program = Path::new("/usr/bin/etcd");
    layer.file("/usr/bin/etcd", program);
    for library in libraries(program) {
        layer.file(library.to_str().unwrap(), &std::fs::canonicalize(&library).unwrap());
    }
    layer.directory("/tmp", 0o1777);
    image("docker.io/library/etcd:latest", layer, &["/usr/bin/etcd"])
}

/// What a program is linked with; nothing if it is static.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// Debian's nginx with the libraries it needs, serving `nginx works` on port 80.
pub fn nginx() -> ImageTar {
    let mut layer = Layer::default();
    let mut files = BTreeSet::from([PathBuf::from("/usr/sbin/nginx"), PathBuf::from("/bin/busybox")]);
    files.extend(libraries(Path::new("/usr/sbin/nginx")));
    for name in ["libnss_files.so.2", "libnss_compat.so.2"] {
        files.extend([Path::new("/lib/x86_64-linux-gnu").join(name)].into_iter().filter(|p| p.exists()));
    }
    for file in files {
        layer.file(file.to_str().unwrap(), &std::fs::canonicalize(&file).unwrap());
    }
    for applet in ["sh", "cat", "sleep", "ls", "wget", "tar", "nslookup", "nc", "seq"] {
        layer.link(&format!("/bin/{applet}"), "busybox");
    }
    layer.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/:/bin/false\n");
    layer.text("/etc/group", "root:x:0:\nwww-data:x:33:\n");
    layer.text(
        "/etc/nginx/nginx.conf",
        "user www-data;\npid /run/nginx.pid;\ndaemon off;\nworker_processes 1;\nerror_log /dev/stderr;\nevents {}\n\
         http { access_log /dev/stdout; server { listen 80; location / { root /www; } } }\n",
    );
    layer.text("/www/index.html", "nginx works\n");
    for directory in ["/var/log/nginx", "/var/lib/nginx", "/run", "/tmp"] {
        layer.directory(directory, 0o777);
    }
    image("docker.io/library/nginx:latest", layer, &["/usr/sbin/nginx"])
}

#[derive(Default)]
struct Layer {
    archive: Option<tar::Builder<Vec<u8>>>,
}

impl Layer {
    fn archive(&mut self) -> &mut tar::Builder<Vec<u8>> {
        self.archive.get_or_insert_with(|| tar::Builder::new(Vec::new()))
    }

    fn add(&mut self, path: &str, kind: tar::EntryType, mode: u32, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        self.archive().append_data(&mut header, path.trim_start_matches('/'), content).unwrap();
    }

    fn file(&mut self, path: &str, source: &Path) {
        let content = std::fs::read(source).unwrap_or_else(|e| panic!("{}: {e}", source.display()));
        self.add(path, tar::EntryType::Regular, 0o755, &content);
    }

    fn text(&mut self, path: &str, content: &str) {
        self.add(path, tar::EntryType::Regular, 0o644, content.as_bytes());
    }

    fn directory(&mut self, path: &str, mode: u32) {
        self.add(path, tar::EntryType::Directory, mode, &[]);
    }

    fn link(&mut self, path: &str, target: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        self.archive().append_link(&mut header, path.trim_start_matches('/'), target).unwrap();
    }
}

/// A whole Debian, as a user's own base image would be.
pub fn debian() -> ImageTar {
    let root = tempfile::tempdir().unwrap();
    let sites = run(&mut command("apt-get", &["indextargets", "--format", "$(SITE)"]), None).ok();
    let site = sites.lines().find(|site| !site.contains("security")).expect("apt has a source of Debian");
    let path = root.path().to_str().unwrap();
    run(&mut command("debootstrap", &["--variant=minbase", "bookworm", path, site]), None).ok();
    // Where it ends before it has cleaned up; else there is nothing to take away.
    run(&mut command("umount", &["-l", &format!("{path}/proc")]), None);
    let mut layer = Layer::default();
    let archive = layer.archive();
    archive.follow_symlinks(false);
    for entry in std::fs::read_dir(root.path()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        match entry.file_type().unwrap().is_dir() {
            // Device nodes and kernel files are the node's to have.
            true if matches!(name.as_str(), "dev" | "proc" | "sys") => layer.directory(&name, 0o755),
            true => layer.archive().append_dir_all(&name, entry.path()).unwrap(),
            false => layer.archive().append_path_with_name(entry.path(), &name).unwrap(),
        }
    }
    image("docker.io/anjone/kicbase:latest", layer, &["/bin/bash"])
}

/// An image for another kind of machine.
pub fn foreign() -> ImageTar {
    let mut layer = Layer::default();
    layer.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    image_for("s390x", "docker.io/anjone/foreign:latest", layer, &["/bin/sh"])
}

fn image(name: &str, layer: Layer, entrypoint: &[&str]) -> ImageTar {
    image_for(if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, name, layer, entrypoint)
}

fn image_for(architecture: &str, name: &str, mut layer: Layer, entrypoint: &[&str]) -> ImageTar {
    layer.archive();
    let layer = layer.archive.take().unwrap().into_inner().unwrap();
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": { "Entrypoint": entrypoint, "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hex::encode(Sha256::digest(&layer)))] },
        "history": [],
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }]);
    let file = tempfile::Builder::new().suffix(".tar").tempfile().unwrap();
    let mut archive = tar::Builder::new(file.reopen().unwrap());
    for (path, content) in [
        ("layer.tar", layer),
        ("config.json", config.to_string().into()),
        ("manifest.json", manifest.to_string().into()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content.as_slice()).unwrap();
    }
    archive.into_inner().unwrap();
    ImageTar { file }
}
