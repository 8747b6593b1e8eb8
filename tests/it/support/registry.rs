//! Debian's docker-registry, on a loopback port of its own.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use super::image::ImageTar;
use super::run::{command, eventually, run};

/// Ends when dropped.
pub struct Registry {
    process: Child,
    pub port: u16,
    _data: tempfile::TempDir,
}

impl Registry {
    pub fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = data.path().join("config.yml");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
                data.path().display()
            ),
        )
        .unwrap();
        let process = Command::new("docker-registry")
            .args(["serve", config.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        let registry = Self { process, port, _data: data };
        eventually("the registry to answer", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        registry
    }

    /// Pushes an archive as `repository` (with tag).
    #[track_caller]
    pub fn push(&self, image: &ImageTar, repository: &str) {
        let source = format!("docker-archive:{}", image.path().display());
        let target = format!("docker://127.0.0.1:{}/{repository}", self.port);
        run(&mut command("skopeo", &["--insecure-policy", "copy", "--dest-tls-verify=false", &source, &target]), None)
            .ok();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
