//! Relays: ports of the host's loopback addresses to the node, and ports of the gateway to the host's loopback.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::drivers::Driver;
use crate::exposure::Protocol;
use crate::profile::Profile;

/// Where relayed connections go.
#[derive(Clone)]
pub(super) enum Way {
    /// To an address that this machine reaches.
    Direct(SocketAddr),
    /// To one that only the node reaches.
    Tunnel { driver: Arc<dyn Driver>, profile: Arc<Profile>, address: SocketAddr },
}

/// Connections of a port that are open at once; more wait.
const MAX_CONNECTIONS: usize = 1024;
const CONNECT: Duration = Duration::from_secs(5);
/// How long a node may refuse, and how often it is asked meanwhile: nothing here tells when it would not.
const REFUSED: Duration = Duration::from_secs(1);
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// A process in the node is started first, maybe on another machine.
const TUNNEL: Duration = Duration::from_secs(20);
/// Clients of a UDP port that are known at once, and how long one is without a packet.
const MAX_CLIENTS: usize = 1024;
const CLIENT_IDLE: Duration = Duration::from_secs(60);
/// Packets that wait for one client's socket.
const WAITING: usize = 64;
const DATAGRAM_BYTES: usize = 65_535;

/// Relays until dropped.
pub(super) struct Relay {
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Listens on 127.0.0.1 and, where the host has it, ::1.
    ///
    /// # Errors
    /// If the port is taken on either, or is not this process' to take.
    pub(super) async fn on_loopback(protocol: Protocol, port: u16, way: Way) -> io::Result<Self> {
        let (v4, v6) = (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
        Self::start(protocol, &[v4, v6], way).await
    }

    /// Listens on these addresses; one of IPv6 may be missing.
    ///
    /// # Errors
    /// As [`Relay::on_loopback`].
    pub(super) async fn start(protocol: Protocol, listen: &[SocketAddr], way: Way) -> io::Result<Self> {
        let mut tasks = JoinSet::new();
        for &address in listen {
            let way = way.clone();
            let started = match protocol {
                Protocol::Tcp => TcpListener::bind(address).await.map(|listener| {
                    tasks.spawn(relay_tcp(listener, way));
                }),
                Protocol::Udp => match way {
                    Way::Direct(target) => UdpSocket::bind(address).await.map(|socket| {
                        tasks.spawn(relay_udp(Arc::new(socket), target));
                    }),
                    Way::Tunnel { .. } => Err(io::Error::new(
                        io::ErrorKind::Unsupported,
                        "UDP does not go through the engine, and the node is on another network",
                    )),
                },
            };
            match started {
                // A host without IPv6.
                Err(error) if address.is_ipv6() && error.kind() != io::ErrorKind::AddrInUse => {}
                outcome => outcome?,
            }
        }
        Ok(Self { _tasks: tasks })
    }
}

async fn relay_tcp(listener: TcpListener, way: Way) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut relays = JoinSet::new();
    loop {
        while relays.try_join_next().is_some() {}
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let Ok((client, _)) = listener.accept().await else {
            // Out of descriptors, mostly: give others time to close theirs.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let way = way.clone();
        relays.spawn(async move {
            let _permit = permit;
            // An end without order of either side is an end for both.
            let _ = join(client, way).await;
        });
    }
}

async fn join(mut client: TcpStream, way: Way) -> io::Result<()> {
    client.set_nodelay(true)?;
    match way {
        Way::Direct(target) => {
            let mut node = tokio::time::timeout(CONNECT, connect(target)).await??;
            node.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut client, &mut node).await.map(drop)
        }
        Way::Tunnel { driver, profile, address } => {
            let dialled = tokio::time::timeout(TUNNEL, driver.dial(profile.control_plane(), address)).await?;
            let mut node = dialled.map_err(io::Error::other)?;
            tokio::io::copy_bidirectional(&mut client, &mut node).await.map(drop)
        }
    }
}

/// Connects. A node refuses for a Service without endpoints, and until it has heard of the first: whoever was told that the pods are
/// available comes here at once, so that it is asked again for [`REFUSED`].
async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let until = tokio::time::Instant::now() + REFUSED;
    loop {
        match TcpStream::connect(target).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && tokio::time::Instant::now() < until => {
                tokio::time::sleep(ASK_AGAIN).await;
            }
            outcome => return outcome,
        }
    }
}

async fn relay_udp(socket: Arc<UdpSocket>, target: SocketAddr) {
    let mut clients: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut relays = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        while relays.try_join_next().is_some() {}
        // An error here is an earlier answer that its client refused.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let Some(packet) = buffer.get(..length).map(<[u8]>::to_vec) else { continue };
        if clients.get(&client).is_none_or(mpsc::Sender::is_closed) {
            if clients.len() >= MAX_CLIENTS {
                clients.retain(|_, sender| !sender.is_closed());
            }
            if clients.len() >= MAX_CLIENTS {
                continue;
            }
            let (sender, receiver) = mpsc::channel(WAITING);
            let socket = socket.clone();
            relays.spawn(async move {
                // Its packets are lost, as packets may be.
                let _ = serve_client(&socket, client, target, receiver).await;
            });
            clients.insert(client, sender);
        }
        if let Some(sender) = clients.get(&client) {
            // What does not fit is lost, as packets may be.
            let _ = sender.try_send(packet);
        }
    }
}

/// Packets of one client, through a socket of its own, until it is idle.
async fn serve_client(
    socket: &UdpSocket,
    client: SocketAddr,
    target: SocketAddr,
    mut packets: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    let node = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    node.connect(target).await?;
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        tokio::select! {
            packet = packets.recv() => match packet {
                Some(packet) => { node.send(&packet).await?; }
                None => return Ok(()),
            },
            length = node.recv(&mut buffer) => match length {
                Ok(length) => { socket.send_to(buffer.get(..length).unwrap_or_default(), client).await?; }
                // The node refuses; the client may try again.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            },
            () = tokio::time::sleep(CLIENT_IDLE) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn tcp_keeps_half_closed_connections() {
        let node = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let target = node.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = node.accept().await {
                let mut text = String::new();
                stream.read_to_string(&mut text).await.unwrap();
                stream.write_all(format!("got {text}").as_bytes()).await.unwrap();
            }
        });
        let port = free_port().await;
        let relay = Relay::on_loopback(Protocol::Tcp, port, Way::Direct(target)).await.unwrap();
        for address in ["127.0.0.1", "::1"] {
            let Ok(mut client) = TcpStream::connect((address, port)).await else {
                assert_eq!(address, "::1", "127.0.0.1 must answer");
                continue;
            };
            client.write_all(b"all").await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "got all");
        }
        assert_eq!(
            Relay::on_loopback(Protocol::Tcp, port, Way::Direct(target)).await.err().map(|error| error.kind()),
            Some(io::ErrorKind::AddrInUse)
        );
        drop(relay);
        tokio::task::yield_now().await;
        assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    }

    #[tokio::test]
    async fn a_node_that_refuses_at_first_is_asked_again() {
        let target = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), free_port().await));
        let port = free_port().await;
        let _relay = Relay::on_loopback(Protocol::Tcp, port, Way::Direct(target)).await.unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        tokio::time::sleep(2 * ASK_AGAIN).await;
        let node = TcpListener::bind(target).await.unwrap();
        let (mut stream, _) = tokio::time::timeout(CONNECT, node.accept()).await.expect("it comes again").unwrap();
        stream.write_all(b"late").await.unwrap();
        drop(stream);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "late");
        // For ever it does not wait.
        drop(node);
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let ended = tokio::time::timeout(2 * REFUSED, client.read_to_string(&mut answer)).await;
        assert!(ended.is_ok(), "the client is told");
    }

    #[tokio::test]
    async fn udp_answers_go_to_the_client_that_asked() {
        let node = UdpSocket::bind("127.0.0.2:0").await.unwrap();
        let target = node.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            while let Ok((length, client)) = node.recv_from(&mut buffer).await {
                node.send_to(&buffer[..length], client).await.unwrap();
            }
        });
        let port = free_port().await;
        let _relay = Relay::on_loopback(Protocol::Udp, port, Way::Direct(target)).await.unwrap();
        let clients = [UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap()];
        for (client, text) in clients.iter().zip(["one", "two"]) {
            client.send_to(text.as_bytes(), ("127.0.0.1", port)).await.unwrap();
        }
        for (client, text) in clients.iter().zip(["one", "two"]) {
            let mut buffer = [0; 64];
            let received = tokio::time::timeout(Duration::from_secs(5), client.recv(&mut buffer)).await;
            assert_eq!(&buffer[..received.unwrap().unwrap()], text.as_bytes());
        }
    }
}
