//! A webhook of a test: reviews of whatever kind come in over HTTPS, a function answers their requests.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kminik_base::pki::Authority;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::https::HttpsServer;

pub struct Webhook {
    server: HttpsServer,
    authority: Authority,
    /// The requests that were answered so far, with their paths.
    pub asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Webhook {
    /// `respond` makes a response of path and request; the request's UID is put in where it says none. `/slow` never
    /// answers, `/broken` with 500 only.
    pub async fn start(respond: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> Webhook {
        let authority = Authority::generate("webhooks", Duration::from_secs(3600)).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let answer = move |path: &str, body: &[u8]| {
            let path = path.split('?').next().unwrap().to_owned();
            match path.as_str() {
                "/slow" => return (0, Vec::new()),
                "/broken" => return (500, b"out of order".to_vec()),
                _ => {}
            }
            let mut review: Value = serde_json::from_slice(body).unwrap();
            let request = review["request"].take();
            let mut response = respond(&path, &request);
            if response["uid"].is_null() {
                response["uid"] = request["uid"].clone();
            }
            log.lock().push((path, request));
            let review = json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response});
            (200, review.to_string().into_bytes())
        };
        let server = HttpsServer::start(&authority, &[], Arc::new(answer)).await;
        Webhook { server, authority, asked }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.server.port)
    }

    /// By which a configuration finds it.
    pub fn client_config(&self, path: &str) -> Value {
        json!({"url": self.url(path), "caBundle": BASE64_STANDARD.encode(self.authority.cert_pem())})
    }
}
