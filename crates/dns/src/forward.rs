//! Questions for others: asked of the node's resolvers, one after the other, over UDP and, where an answer does not fit, TCP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::cache::Cache;
use crate::resolv::nameservers;

#[derive(Clone, Debug)]
pub struct ForwarderConfig {
    /// Read again when it has changed.
    pub resolv_conf: PathBuf,
    /// Whether loopback resolvers are asked: only on the host itself, where they are the host's.
    pub loopback: bool,
}

/// Asks upstream resolvers, and remembers what they said.
pub struct Forwarder {
    config: ForwarderConfig,
    upstreams: Mutex<Upstreams>,
    cache: Cache,
    in_flight: Semaphore,
    /// A question that only a loop can bring back to us.
    probe: Name,
    looped: std::sync::atomic::AtomicBool,
}

#[derive(Default)]
struct Upstreams {
    servers: Vec<SocketAddr>,
    modified: Option<SystemTime>,
    checked: Option<Instant>,
}

const CACHE_BYTES: usize = 4 << 20;
const MAX_IN_FLIGHT: usize = 1000;
const TRY: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
/// How old what was read of the configuration may be.
const FRESH: Duration = Duration::from_secs(5);
/// What fits the path of nearly every network unfragmented.
const UDP_PAYLOAD: u16 = 1232;

impl Forwarder {
    pub fn new(config: ForwarderConfig) -> Self {
        let label = format!("{:016x}", rand::random::<u64>());
        let probe =
            Name::from_labels([label.as_bytes(), b"kminik-loop-probe", b"invalid"]).unwrap_or_else(|_| Name::root());
        Self {
            config,
            upstreams: Mutex::default(),
            cache: Cache::new(CACHE_BYTES),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            probe,
            looped: false.into(),
        }
    }

    /// The answer of the first resolver that has one: its code, and its records. `SERVFAIL` when none has.
    pub async fn resolve(&self, name: &Name, kind: RecordType, class: DNSClass) -> Message {
        let cacheable = class == DNSClass::IN;
        if cacheable && let Some(message) = self.cache.get(name, kind) {
            return message;
        }
        let failure = || Message::error_msg(0, OpCode::Query, ResponseCode::ServFail);
        if self.looped.load(std::sync::atomic::Ordering::Relaxed) {
            return failure();
        }
        let Ok(_permit) = self.in_flight.try_acquire() else { return failure() };
        let mut query = Query::query(name.clone(), kind);
        query.set_query_class(class);
        let mut last = failure();
        for server in std::iter::repeat_n(self.servers(), ROUNDS).flatten() {
            match timeout(TRY, ask(server, &query)).await {
                Ok(Ok((message, bytes))) => match message.metadata.response_code {
                    ResponseCode::NoError | ResponseCode::NXDomain => {
                        if cacheable {
                            self.cache.put(name, kind, &message, bytes);
                        }
                        return message;
                    }
                    // It cannot or will not; another may.
                    _ => last = message,
                },
                Ok(Err(error)) => tracing::debug!(%server, %error, "resolver failed"),
                Err(_) => tracing::debug!(%server, "resolver did not answer in time"),
            }
        }
        last
    }

    /// Sends a question upstream that comes back to [`Forwarder::is_probe`] if upstream leads back here.
    pub async fn probe_for_loop(&self) {
        self.resolve(&self.probe, RecordType::HINFO, DNSClass::IN).await;
    }

    /// Whether this is the probe; from then on nothing is forwarded.
    pub fn is_probe(&self, name: &Name) -> bool {
        let is_probe = *name == self.probe;
        if is_probe && !self.looped.swap(true, std::sync::atomic::Ordering::Relaxed) {
            tracing::error!("upstream resolvers lead back to this server, nothing is forwarded any more");
        }
        is_probe
    }

    fn servers(&self) -> Vec<SocketAddr> {
        let mut upstreams = self.upstreams.lock();
        if upstreams.checked.is_none_or(|checked| checked.elapsed() > FRESH) {
            upstreams.checked = Some(Instant::now());
            let modified = std::fs::metadata(&self.config.resolv_conf).and_then(|metadata| metadata.modified()).ok();
            if modified.is_none() || modified != upstreams.modified {
                match std::fs::read_to_string(&self.config.resolv_conf) {
                    Ok(text) => {
                        let usable = |server: &SocketAddr| self.config.loopback || !server.ip().is_loopback();
                        upstreams.servers = nameservers(&text).into_iter().filter(usable).collect();
                        upstreams.modified = modified;
                    }
                    // What was read before still holds.
                    Err(error) => tracing::warn!(%error, "resolver configuration cannot be read"),
                }
            }
        }
        upstreams.servers.clone()
    }
}

/// One question to one server; its answer and the length of that.
async fn ask(server: SocketAddr, query: &Query) -> std::io::Result<(Message, usize)> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD);
    message.set_edns(edns);
    let bytes = message.to_vec().map_err(std::io::Error::other)?;
    let (answer, length) = over_udp(server, &bytes, message.metadata.id, query).await?;
    if answer.metadata.truncation {
        over_tcp(server, &bytes, message.metadata.id, query).await
    } else {
        Ok((answer, length))
    }
}

async fn over_udp(server: SocketAddr, bytes: &[u8], id: u16, query: &Query) -> std::io::Result<(Message, usize)> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A new socket, and so a new port, each time: harder to guess for who would forge an answer.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = buffer.get(..length).and_then(|bytes| accept(bytes, id, query)) {
            return Ok((answer, length));
        }
    }
}

async fn over_tcp(server: SocketAddr, bytes: &[u8], id: u16, query: &Query) -> std::io::Result<(Message, usize)> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
    stream.write_u16(length).await?;
    stream.write_all(bytes).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut buffer = vec![0; length];
    stream.read_exact(&mut buffer).await?;
    let answer = accept(&buffer, id, query);
    answer.map(|answer| (answer, length)).ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidData))
}

/// The message, if it answers this very question.
fn accept(bytes: &[u8], id: u16, query: &Query) -> Option<Message> {
    let message = Message::from_vec(bytes).ok()?;
    let same = message.metadata.id == id
        && message.metadata.message_type == MessageType::Response
        && message.queries.iter().all(|asked| asked.name == query.name && asked.query_type == query.query_type);
    same.then_some(message)
}
