//! A real etcd (Debian's package etcd-server) of one member on free ports, with its data in a temporary directory.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, reason = "a module of several tests")]

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kminik_base::pki::{Authority, Identity, Subject, Usage};
use kminik_store::{EtcdOptions, EtcdStore};

const DAY: Duration = Duration::from_secs(86_400);
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Etcd {
    process: Option<Child>,
    directory: tempfile::TempDir,
    client_port: u16,
    peer_port: u16,
    tls: Option<Tls>,
}

struct Tls {
    authority: Authority,
    client: Identity,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Etcd {
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// With certificates for both sides; clients without one are refused.
    pub fn start_tls() -> Self {
        let authority = Authority::generate("etcd-ca", DAY).unwrap();
        let client = authority.issue(&Subject::new("kminik", None), &Usage::Client, DAY).unwrap();
        Self::start_with(Some(Tls { authority, client }))
    }

    fn start_with(tls: Option<Tls>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        if let Some(Tls { authority, .. }) = &tls {
            let address = std::net::Ipv4Addr::LOCALHOST.into();
            let usage = Usage::Server { names: vec!["localhost".into()], addresses: vec![address] };
            let server = authority.issue(&Subject::new("etcd", None), &usage, DAY).unwrap();
            for (name, text) in
                [("ca.pem", authority.cert_pem()), ("server.pem", &server.cert_pem), ("server.key", &server.key_pem)]
            {
                std::fs::write(directory.path().join(name), text).unwrap();
            }
        }
        let (client_port, peer_port) = (free_port(), free_port());
        let mut etcd = Etcd { process: None, directory, client_port, peer_port, tls };
        etcd.resume();
        etcd
    }

    /// Starts the member with the data it has.
    pub fn resume(&mut self) {
        let path = |name: &str| -> PathBuf { self.directory.path().join(name) };
        let (client, peer) = (self.endpoint(), format!("http://127.0.0.1:{}", self.peer_port));
        let mut command = Command::new("etcd");
        command.args(["--name", "one", "--initial-cluster-state", "new", "--log-level", "error"]);
        command.arg("--data-dir").arg(path("data"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("one={peer}")]);
        // Elections of one member need no patience, and times to live may be short.
        command.args(["--heartbeat-interval", "50", "--election-timeout", "250"]);
        if self.tls.is_some() {
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(path("ca.pem"));
            command.arg("--cert-file").arg(path("server.pem")).arg("--key-file").arg(path("server.key"));
        }
        let log = std::fs::File::create(path("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = command.spawn().expect("etcd is on PATH (Debian's package etcd-server; dev/test installs it)");
        self.process = Some(process);
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.client_port)).is_err() {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            let log = || std::fs::read_to_string(path("log")).unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "etcd does not start ({ended:?}): {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills the member; its data stays.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub fn endpoint(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.client_port)
    }

    pub fn options(&self) -> EtcdOptions {
        let tls = self.tls.as_ref();
        EtcdOptions {
            endpoints: vec![self.endpoint()],
            ca_pem: tls.map(|tls| tls.authority.cert_pem().to_owned()),
            client_pem: tls.map(|tls| (tls.client.cert_pem.clone(), tls.client.key_pem.clone())),
        }
    }

    pub fn store(&self) -> EtcdStore {
        EtcdStore::new(&self.options()).unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
