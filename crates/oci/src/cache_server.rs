//! A cache for others on the machine: the read half of the distribution API, and taking in what they have pulled.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::mirrors::CACHE_USER;
use crate::serve::{self, Body, Refused};
use crate::{Digest, ImageStore};

/// Connections that are open at once; more wait.
const MAX_CONNECTIONS: usize = 256;
/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(30);

/// Serves a store to whoever knows the token. Never returns.
pub async fn serve_cache(store: ImageStore, listener: TcpListener, token: &str) {
    let login = format!("Basic {}", BASE64_STANDARD.encode(format!("{CACHE_USER}:{token}")));
    let login = Digest::of(login.as_bytes());
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, mostly: give others time to close theirs.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (store, login) = (store.clone(), login.clone());
        let service = hyper::service::service_fn(move |request| {
            let (store, login) = (store.clone(), login.clone());
            async move { Ok::<_, Infallible>(answer(&store, &login, request).await) }
        });
        connections.spawn(async move {
            let _permit = permit;
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(error = %error, "connection to the cache broke");
            }
        });
    }
}

async fn answer(store: &ImageStore, login: &Digest, request: Request<Incoming>) -> Response<Body> {
    // Digests are compared, so that the time it takes says nothing of the token.
    let shown = request.headers().get(AUTHORIZATION).map(|value| Digest::of(value.as_bytes()));
    if shown.as_ref() != Some(login) {
        let mut response = refused(&Refused { status: StatusCode::UNAUTHORIZED, text: "who are you?".to_owned() });
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"kminik\""));
        return response;
    }
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let answered = match parts.as_slice() {
        ["v2", ..] | ["missing"] | ["load"] => serve::serve(store, &parts, request).await,
        _ => Err(Refused { status: StatusCode::NOT_FOUND, text: "404 page not found".to_owned() }),
    };
    answered.unwrap_or_else(|error| refused(&error))
}

fn refused(error: &Refused) -> Response<Body> {
    let mut response = serve::text(format!("{}\n", error.text));
    *response.status_mut() = error.status;
    response
}
