//! `/kminik/v1/images…`: what the command line's image commands do on a node, and where its pulls go.

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use kminik_base::component::chain;
use kminik_oci::{ResolverConfig, serve};

use super::Shared;
use super::route::{Body, Failure, json};

/// A list of mirrors and certificates is far smaller.
const MAX_CONFIG_BYTES: usize = 4 * 1024 * 1024;

pub(super) async fn serve(
    shared: &Shared,
    rest: &[&str],
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    if (request.method(), rest) == (&Method::PUT, &["config"]) {
        return configure(shared, request).await;
    }
    serve::serve(&shared.images, rest, request).await.map_err(|refused| Failure::new(refused.status, refused.text))
}

/// Pulls that begin from now on go by the new configuration, which the node also keeps for its next start.
async fn configure(shared: &Shared, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
    let body = Limited::new(request.into_body(), MAX_CONFIG_BYTES).collect().await;
    let body = body.map_err(|error| Failure::bad_request(error.to_string()))?.to_bytes();
    let config: ResolverConfig =
        serde_json::from_slice(&body).map_err(|error| Failure::bad_request(error.to_string()))?;
    shared.images.reconfigure(config.clone()).map_err(|error| Failure::bad_request(chain(&error)))?;
    if let Some(keep) = &shared.config.keep_image_config {
        let kept = keep(&config).map_err(|error| error.to_string());
        kept.map_err(|error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    }
    Ok(json(&serde_json::json!({})))
}
