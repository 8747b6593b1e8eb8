//! A cache for others on the machine: the read half of the distribution API, and taking in what they have pulled.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::net::TcpListener;

use crate::listen::listen;
use crate::mirrors::CACHE_USER;
use crate::serve::{self, Body, Refused};
use crate::{Digest, ImageStore};

/// Serves a store to whoever knows the token. Never returns.
pub async fn serve_cache(store: ImageStore, listener: TcpListener, token: &str) {
    let login = format!("Basic {}", BASE64_STANDARD.encode(format!("{CACHE_USER}:{token}")));
    let login = Digest::of(login.as_bytes());
    listen(&listener, move |request| {
        let (store, login) = (store.clone(), login.clone());
        async move { answer(&store, &login, request).await }
    })
    .await;
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
