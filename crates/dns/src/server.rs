//! The listener: UDP and TCP on one address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};
use parking_lot::RwLock;
use rand::seq::SliceRandom;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::answer::Reply;
use crate::forward::Forwarder;
use crate::zone::Zone;

#[derive(Debug, thiserror::Error)]
#[error("dns cannot be served on {address}")]
pub struct ListenError {
    pub address: SocketAddr,
    #[source]
    pub source: std::io::Error,
}

/// Answers from a zone, and what is not in it from upstream.
pub struct DnsServer {
    /// `None` forwards everything.
    zone: RwLock<Option<Arc<Zone>>>,
    forwarder: Forwarder,
}

const MAX_UDP_IN_FLIGHT: usize = 1000;
const MAX_TCP_CONNECTIONS: usize = 200;
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Without EDNS, and the most that is sent with it.
const UDP_PAYLOAD: (u16, u16) = (512, 4096);
const UDP_RECEIVE_BYTES: usize = 4096;

impl DnsServer {
    pub fn new(forwarder: Forwarder) -> Self {
        Self { zone: RwLock::new(None), forwarder }
    }

    /// Answers from this zone from now on.
    pub fn set_zone(&self, zone: Arc<Zone>) {
        *self.zone.write() = Some(zone);
    }

    pub fn forwarder(&self) -> &Forwarder {
        &self.forwarder
    }

    /// Listens on UDP and TCP, one and the same port if `address` has port 0.
    ///
    /// # Errors
    /// If either cannot be bound.
    pub async fn bind(address: SocketAddr) -> Result<(UdpSocket, TcpListener), ListenError> {
        let failed = |source| ListenError { address, source };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let udp = UdpSocket::bind(tcp.local_addr().map_err(failed)?).await.map_err(failed)?;
        Ok((udp, tcp))
    }

    /// Serves until `stop`.
    pub async fn serve(self: Arc<Self>, udp: UdpSocket, tcp: TcpListener, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().serve_udp(Arc::new(udp)));
        tasks.spawn(self.serve_tcp(tcp));
        stop.cancelled().await;
    }

    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let in_flight = Arc::new(Semaphore::new(MAX_UDP_IN_FLIGHT));
        let mut buffer = vec![0; UDP_RECEIVE_BYTES];
        loop {
            let Ok(permit) = in_flight.clone().acquire_owned().await else { return };
            // An error here is an earlier answer that its client refused.
            let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
            let Some(request) = buffer.get(..length).map(<[u8]>::to_vec) else { continue };
            let (server, socket) = (self.clone(), socket.clone());
            tokio::spawn(async move {
                let _permit = permit;
                if let Some(answer) = server.answer(&request, true).await {
                    // The client asks again if this is lost.
                    let _ = socket.send_to(&answer, client).await;
                }
            });
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        let connections = Arc::new(Semaphore::new(MAX_TCP_CONNECTIONS));
        loop {
            let Ok(permit) = connections.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors, mostly: give others time to close theirs.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let server = self.clone();
            tokio::spawn(async move {
                let _permit = permit;
                // It ends when the client goes, asks nothing for a while, or makes no sense.
                let _ = server.converse(stream).await;
            });
        }
    }

    async fn converse(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let length = tokio::time::timeout(TCP_IDLE, stream.read_u16()).await??;
            let mut request = vec![0; usize::from(length)];
            tokio::time::timeout(TCP_IDLE, stream.read_exact(&mut request)).await??;
            let Some(answer) = self.answer(&request, false).await else { return Ok(()) };
            let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
            let mut framed = length.to_be_bytes().to_vec();
            framed.extend(answer);
            tokio::time::timeout(TCP_IDLE, stream.write_all(&framed)).await??;
        }
    }

    /// The answer's bytes, cut to what the client takes; `None` for what deserves no answer.
    async fn answer(&self, request: &[u8], datagram: bool) -> Option<Vec<u8>> {
        let request = match Message::from_vec(request) {
            Ok(request) => request,
            Err(_) => return malformed(request),
        };
        if request.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut response = Message::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
        response.metadata = Metadata::response_from_request(&request.metadata);
        response.metadata.recursion_available = true;
        response.add_queries(request.queries.iter().cloned());
        let limit =
            request.edns.as_ref().map_or(UDP_PAYLOAD.0, |edns| edns.max_payload().clamp(UDP_PAYLOAD.0, UDP_PAYLOAD.1));
        if request.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_PAYLOAD.1);
            response.set_edns(edns);
        }
        match request.queries.as_slice() {
            _ if request.metadata.op_code != OpCode::Query => response.metadata.response_code = ResponseCode::NotImp,
            [query] => self.fill(&mut response, query).await,
            _ => response.metadata.response_code = ResponseCode::FormErr,
        }
        let bytes = encode(&response)?;
        let limit = if datagram { usize::from(limit) } else { usize::from(u16::MAX) };
        if bytes.len() <= limit {
            return Some(bytes);
        }
        encode(&response.truncate())
    }

    async fn fill(&self, response: &mut Message, query: &Query) {
        if self.forwarder.is_probe(&query.name) {
            response.metadata.response_code = ResponseCode::ServFail;
            return;
        }
        let zone = self.zone.read().clone();
        let reply = match zone.as_deref() {
            Some(zone) if query.query_class == DNSClass::IN => zone.answer(&query.name, query.query_type),
            _ => Reply::Forward,
        };
        match reply {
            Reply::Own { code, mut answers, authorities, additionals } => {
                answers[..].sort_by_key(|record| record.record_type() != RecordType::CNAME);
                let addresses = answers.iter().position(|record| record.record_type() != RecordType::CNAME);
                // Clients take the first address they are given.
                if let Some(addresses) = addresses.and_then(|first| answers.get_mut(first..)) {
                    addresses.shuffle(&mut rand::rng());
                }
                response.metadata.authoritative = true;
                response.metadata.response_code = code;
                response.answers = answers;
                response.authorities = authorities;
                response.additionals = additionals;
            }
            Reply::Follow { answers, target } => {
                let followed = self.forwarder.resolve(&target, query.query_type, query.query_class).await;
                response.answers = answers;
                response.answers.extend(followed.answers);
                response.authorities = followed.authorities;
                response.metadata.response_code = followed.metadata.response_code;
            }
            Reply::Forward => {
                let forwarded = self.forwarder.resolve(&query.name, query.query_type, query.query_class).await;
                response.metadata.response_code = forwarded.metadata.response_code;
                response.answers = forwarded.answers;
                response.authorities = forwarded.authorities;
                response.additionals = forwarded.additionals;
            }
        }
    }
}

fn encode(message: &Message) -> Option<Vec<u8>> {
    message.to_vec().inspect_err(|error| tracing::warn!(%error, "dns answer cannot be encoded")).ok()
}

/// `FORMERR` for a request whose header at least can be read and is not itself an answer.
fn malformed(request: &[u8]) -> Option<Vec<u8>> {
    let [high, low, flags, ..] = request else { return None };
    const RESPONSE: u8 = 0x80;
    if request.len() < 12 || flags & RESPONSE != 0 {
        return None;
    }
    encode(&Message::error_msg(u16::from_be_bytes([*high, *low]), OpCode::Query, ResponseCode::FormErr))
}
