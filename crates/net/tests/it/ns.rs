//! Network namespaces as values: each is a thread that lives in it, and is gone with it.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

type Job = Box<dyn FnOnce(&tokio::runtime::Runtime) + Send>;

pub(crate) struct Ns {
    pub(crate) path: PathBuf,
    jobs: mpsc::Sender<Job>,
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

impl Ns {
    pub(crate) fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (born, path) = mpsc::channel();
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root is needed");
            let thread = nix::unistd::gettid();
            born.send(PathBuf::from(format!("/proc/{}/task/{thread}/ns/net", std::process::id()))).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            for job in queue {
                job(&runtime);
            }
        });
        let ns = Self { path: path.recv().unwrap(), jobs };
        ns.sh("ip link set lo up");
        ns
    }

    /// Runs a closure in the namespace; panics are the caller's.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        self.with(move |_| job())
    }

    /// Runs a future in the namespace.
    pub(crate) fn block_on<F>(&self, future: impl FnOnce() -> F + Send + 'static) -> F::Output
    where
        F: Future,
        F::Output: Send + 'static,
    {
        self.with(move |runtime| runtime.block_on(future()))
    }

    fn with<T: Send + 'static>(&self, job: impl FnOnce(&tokio::runtime::Runtime) -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let job: Job = Box::new(move |runtime| {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(runtime)));
            let _ = done.send(outcome);
        });
        self.jobs.send(job).unwrap();
        match result.recv().unwrap() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs a shell command in the namespace; its output.
    pub(crate) fn sh(&self, command: &str) -> String {
        let output = self.try_sh(command);
        assert!(output.1, "{command}: {}", output.0);
        output.0
    }

    pub(crate) fn try_sh(&self, command: &str) -> (String, bool) {
        let command = command.to_owned();
        self.run(move || {
            let output = Command::new("sh").arg("-c").arg(&command).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            (text.into_owned(), output.status.success())
        })
    }

    /// A server that answers every connection with `<name> <peer address>`.
    pub(crate) fn serve_tcp(&self, port: u16, name: &str) {
        let listener = self.run(move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        let name = name.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let peer = stream.peer_addr().unwrap().ip();
                let _ = write!(stream, "{name} {peer}");
            }
        });
    }

    /// The same for every datagram.
    pub(crate) fn serve_udp(&self, port: u16, name: &str) {
        let socket = self.run(move || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        let name = name.to_owned();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
            }
        });
    }

    /// What the server at `address` answers, or the kind of failure.
    pub(crate) fn ask_tcp(&self, address: &str) -> Result<String, std::io::ErrorKind> {
        let address: SocketAddr = address.parse().unwrap();
        self.run(move || {
            let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| error.kind())?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).map_err(|error| error.kind())?;
            Ok(text)
        })
    }

    /// A new UDP socket, to be asked through several times.
    pub(crate) fn udp(&self) -> UdpSocket {
        let socket = self.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    pub(crate) fn ask_udp(&self, address: &str) -> Result<String, std::io::ErrorKind> {
        ask_udp(&self.udp(), address)
    }
}

pub(crate) fn ask_udp(socket: &UdpSocket, address: &str) -> Result<String, std::io::ErrorKind> {
    socket.send_to(b"?", address).map_err(|error| error.kind())?;
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).map_err(|error| error.kind())?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Joins two namespaces by a veth pair with these addresses.
pub(crate) fn connect(one: &Ns, one_link: &str, one_address: &str, other: &Ns, other_link: &str, other_address: &str) {
    let other_path = other.path.clone();
    let (link, peer) = (one_link.to_owned(), other_link.to_owned());
    one.block_on(move || async move {
        let namespace = std::fs::File::open(other_path).unwrap();
        let route = nlink::Connection::<nlink::Route>::new().unwrap();
        let veth = nlink::netlink::link::VethLink::new(link, peer).peer_netns_fd(&namespace);
        route.add_link(veth).await.unwrap();
    });
    one.sh(&format!("ip addr add {one_address} dev {one_link} && ip link set {one_link} up"));
    other.sh(&format!("ip addr add {other_address} dev {other_link} && ip link set {other_link} up"));
}
