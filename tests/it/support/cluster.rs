//! A cluster with a home and a kubeconfig of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use super::host::Host;
use super::image::ImageTar;
use super::run::{Output, kminik_binary, run};

/// Deleted when dropped, whatever state it is in.
pub struct Cluster {
    pub profile: String,
    driver: &'static str,
    home: tempfile::TempDir,
    /// Where its commands run; on the machine itself if `None`.
    host: Option<Arc<Host>>,
    /// The engine that is meant; the machine's own if `None`.
    engine: Option<String>,
}

impl Cluster {
    /// A profile name and a home; nothing is started.
    pub fn prepare(name: &str) -> Self {
        let home = tempfile::Builder::new().prefix("kminik-it-").tempdir().unwrap();
        Self { profile: format!("it-{name}-{}", std::process::id()), driver: "native", home, host: None, engine: None }
    }

    /// As [`Cluster::prepare`], on a host of the test's own.
    pub fn on(host: &Arc<Host>, name: &str) -> Self {
        let mut cluster = Self::prepare(name);
        cluster.host = Some(host.clone());
        cluster
    }

    /// As [`Cluster::prepare`], on the engine that answers at this address.
    pub fn on_engine(endpoint: &str, name: &str) -> Self {
        let mut cluster = Self::prepare(name);
        (cluster.driver, cluster.engine) = ("docker", Some(endpoint.to_owned()));
        cluster
    }

    /// By another driver than the native one.
    pub fn of_driver(mut self, driver: &'static str) -> Self {
        self.driver = driver;
        self
    }

    /// Started with the native driver and these further arguments.
    #[track_caller]
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        let cluster = Self::prepare(name);
        cluster.start_again(arguments).ok();
        cluster
    }

    /// As [`Cluster::start`], with another driver.
    #[track_caller]
    pub fn start_by(driver: &'static str, name: &str, arguments: &[&str]) -> Self {
        let cluster = Self::prepare(name).of_driver(driver);
        cluster.start_again(arguments).ok();
        cluster
    }

    #[track_caller]
    pub fn start_again(&self, arguments: &[&str]) -> Output {
        let driver = format!("--driver={}", self.driver);
        let mut all = vec!["start"];
        if !arguments.iter().any(|a| a.contains("driver")) {
            all.push(&driver);
        }
        all.extend(arguments);
        self.kminik(&all)
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("kubeconfig")
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(&self.profile, arguments)
    }

    /// A command about another cluster of the same home.
    pub fn command_of(&self, profile: &str, arguments: &[&str]) -> Command {
        let mut command = self.program(&kminik_binary());
        command.args(["-p", profile]).args(arguments);
        self.environment(&mut command);
        command
    }

    fn program(&self, program: &Path) -> Command {
        match &self.host {
            Some(host) => host.command(program.to_str().unwrap(), &[]),
            None => Command::new(program),
        }
    }

    fn environment(&self, command: &mut Command) {
        command.env("KMINIK_HOME", self.home.path().join("home")).env("KUBECONFIG", self.kubeconfig());
        command.envs(self.engine.iter().map(|engine| ("DOCKER_HOST", engine)));
    }

    #[track_caller]
    pub fn kminik(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments), None)
    }

    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.program(&kubectl());
        command.args(arguments);
        self.environment(&mut command);
        command
    }

    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        run(&mut self.kubectl_command(arguments), None)
    }

    /// kubectl with `-o json`.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.kubectl(&[arguments, &["-o", "json"]].concat()).json()
    }

    /// `kubectl apply -f -`.
    #[track_caller]
    pub fn apply(&self, manifest: &str) -> String {
        self.feed(&["apply", "-f", "-"], manifest).ok()
    }

    /// kubectl with a manifest on its stdin. A comment goes before it: kubectl takes what begins with `{` for JSON.
    #[track_caller]
    pub fn feed(&self, arguments: &[&str], manifest: &str) -> Output {
        run(&mut self.kubectl_command(arguments), Some(format!("# manifest\n{manifest}").as_bytes()))
    }

    /// Loads an image without a registry.
    #[track_caller]
    pub fn load(&self, image: &ImageTar) {
        self.kminik(&["image", "load", image.path().to_str().unwrap()]).ok();
    }

    pub fn delete(&self) -> Output {
        self.kminik(&["delete"])
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let output = self.delete();
        if output.code != 0 {
            eprintln!("cannot delete {}: {}", self.profile, output.stderr);
        }
    }
}

/// The newest kubectl of those on PATH and in the usual places; `KUBECTL` names another.
pub fn kubectl() -> PathBuf {
    std::env::var_os("KUBECTL").map_or_else(|| "kubectl".into(), PathBuf::from)
}

/// A namespace for one test in a shared cluster.
#[track_caller]
pub fn namespace(cluster: &Cluster, test: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("{test}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    cluster.kubectl(&["create", "namespace", &name]).ok();
    name
}
