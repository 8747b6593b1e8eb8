//! The behaviours that the distribution specification asks for, over HTTP.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::Path;
use std::time::Duration;

use kminik_oci::Digest;
use kminik_registry::{Config, Policy};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

struct Served {
    base: String,
    client: Client,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Served {
    async fn on(data: &Path, policy: Policy) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = listener.local_addr().unwrap();
        let config = Config { data: data.to_owned(), listen, limit_bytes: 100_000, policy };
        let task = tokio::spawn(async move { kminik_registry::serve(listener, config).await.unwrap() });
        let client = Client::builder().no_proxy().build().unwrap();
        Self { base: format!("http://{listen}"), client, task }
    }

    fn ask(&self, method: &str, path: &str) -> RequestBuilder {
        self.client.request(Method::from_bytes(method.as_bytes()).unwrap(), format!("{}{path}", self.base))
    }

    async fn status(&self, method: &str, path: &str) -> u16 {
        self.ask(method, path).send().await.unwrap().status().as_u16()
    }

    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.ask("GET", path).send().await.unwrap().text().await.unwrap()).unwrap()
    }

    /// A new upload's path.
    async fn begin(&self, repository: &str) -> String {
        let begun = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/")).send().await.unwrap();
        assert_eq!(begun.status(), StatusCode::ACCEPTED);
        header(&begun, "location").to_owned()
    }

    async fn blob(&self, repository: &str, content: &str) -> Digest {
        let digest = Digest::of(content.as_bytes());
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let pushed = self.ask("POST", &path).body(content.to_owned()).send().await.unwrap();
        let (status, location) = (pushed.status(), pushed.headers().get("location").cloned());
        assert_eq!(status, StatusCode::CREATED, "{}", pushed.text().await.unwrap());
        assert_eq!(location.unwrap(), format!("/v2/{repository}/blobs/{digest}"));
        digest
    }

    async fn put(&self, repository: &str, reference: &str, kind: &str, document: &Value) -> Response {
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.ask("PUT", &path).header("content-type", kind).body(document.to_string()).send().await.unwrap()
    }

    /// An image of one layer, pushed; its digest.
    async fn image(&self, repository: &str, tag: &str, layer: &str) -> Digest {
        let document = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": { "mediaType": "x/c", "digest": self.blob(repository, "{}").await, "size": 2 },
            "layers": [{ "mediaType": "x/l", "digest": self.blob(repository, layer).await, "size": layer.len() }],
        });
        let put = self.put(repository, tag, MANIFEST, &document).await;
        assert_eq!(put.status(), StatusCode::CREATED);
        header(&put, "docker-content-digest").parse().unwrap()
    }
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

async fn code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    (status, body["errors"][0]["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn blobs_are_pushed_whole_in_pieces_and_from_elsewhere() {
    let data = tempfile::tempdir().unwrap();
    let served = Served::on(data.path(), Policy::default()).await;
    let version = served.ask("GET", "/v2/").send().await.unwrap();
    assert_eq!(
        (version.status(), header(&version, "docker-distribution-api-version")),
        (StatusCode::OK, "registry/2.0")
    );

    let whole = served.blob("a/b", "whole").await;
    // By PUT of all, after the upload has begun.
    let digest = Digest::of(b"later");
    let upload = served.begin("a/b").await;
    let put = served.ask("PUT", &format!("{upload}?digest={digest}")).body("later").send().await.unwrap();
    assert_eq!((put.status(), header(&put, "docker-content-digest")), (StatusCode::CREATED, digest.as_str()));
    assert_eq!(served.status("GET", &upload).await, 404, "it has ended");

    // In pieces: one that does not follow is refused and told where the upload is; a restart loses nothing.
    let upload = served.begin("a/b").await;
    let piece = |served: &Served, range: &str, body: &'static str| {
        served.ask("PATCH", &upload).header("content-range", range).body(body).send()
    };
    let first = piece(&served, "0-2", "abc").await.unwrap();
    assert_eq!((first.status(), header(&first, "range")), (StatusCode::ACCEPTED, "0-2"));
    let skipping = piece(&served, "5-6", "xx").await.unwrap();
    assert_eq!((skipping.status().as_u16(), header(&skipping, "range")), (416, "0-2"));
    assert_eq!(piece(&served, "what", "xx").await.unwrap().status(), 400);
    drop(served);
    let served = Served::on(data.path(), Policy::default()).await;
    let there = served.ask("GET", &upload).send().await.unwrap();
    assert_eq!((there.status().as_u16(), header(&there, "range")), (204, "0-2"));
    assert_eq!(piece(&served, "3-4", "de").await.unwrap().status(), 202);
    let digest = Digest::of(b"abcdef");
    let put = served.ask("PUT", &format!("{upload}?digest={digest}")).body("f").send().await.unwrap();
    assert_eq!(put.status(), StatusCode::CREATED);
    let text = served.ask("GET", &format!("/v2/a/b/blobs/{digest}")).send().await.unwrap().text().await.unwrap();
    assert_eq!(text, "abcdef");

    // What has another digest than was said is nothing, nor is what was cancelled.
    let upload = served.begin("a/b").await;
    let wrong = served.ask("PUT", &format!("{upload}?digest={digest}")).body("other").send().await.unwrap();
    assert_eq!(code(wrong).await, (400, "DIGEST_INVALID".to_owned()));
    let absent = Digest::of(b"other");
    assert_eq!(served.status("HEAD", &format!("/v2/a/b/blobs/{absent}")).await, 404);
    let upload = served.begin("a/b").await;
    assert_eq!(served.status("DELETE", &upload).await, 204);
    assert_eq!(served.status("PUT", &format!("{upload}?digest={digest}")).await, 404);
    let elsewhere = upload.replace("a/b", "a/c");
    assert_eq!(served.status("GET", &elsewhere).await, 404);

    // From another repository; one that lacks it makes it an upload.
    let mount = |from: &str, digest: &Digest| format!("/v2/c/blobs/uploads/?mount={digest}&from={from}");
    let mounted = served.ask("POST", &mount("a/b", &whole)).send().await.unwrap();
    assert_eq!(
        (mounted.status(), header(&mounted, "location")),
        (StatusCode::CREATED, format!("/v2/c/blobs/{whole}").as_str())
    );
    assert_eq!(served.status("HEAD", &format!("/v2/c/blobs/{whole}")).await, 200);
    assert_eq!(served.status("POST", &mount("a/b", &absent)).await, 202);
    // A repository shows only what is its own.
    assert_eq!(served.status("HEAD", &format!("/v2/c/blobs/{digest}")).await, 404);

    let big = served.begin("a/b").await;
    let refused = served.ask("PATCH", &big).body(vec![0; 100_001]).send().await.unwrap();
    assert_eq!(code(refused).await, (413, "SIZE_INVALID".to_owned()));
    for bad in ["/v2/A/tags/list", "/v2/a/../b/blobs/uploads/", "/v2/a/blobs/sha256:12", "/v2/a/manifests/-x"] {
        assert!(served.status("GET", bad).await >= 400, "{bad}");
    }
    let leftover: Vec<_> = std::fs::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(leftover.len(), 2, "{leftover:?}");
}

#[tokio::test]
async fn an_upload_ends_for_everybody_at_once() {
    let data = tempfile::tempdir().unwrap();
    let served = Served::on(data.path(), Policy::default()).await;
    let digest = Digest::of(b"abcd");
    let upload = served.begin("a").await;
    // One request sends the last piece slowly, and another waits behind it.
    let host = served.base.trim_start_matches("http://").to_owned();
    let mut slow = TcpStream::connect(&host).await.unwrap();
    let head = format!(
        "PUT {upload}?digest={digest} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nConnection: close\r\n\r\nab"
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let late = tokio::spawn(served.ask("PATCH", &upload).body("spoilt").send());
    tokio::time::sleep(Duration::from_millis(200)).await;
    slow.write_all(b"cd").await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert_eq!(late.await.unwrap().unwrap().status(), StatusCode::NOT_FOUND);
    let blob = served.ask("GET", &format!("/v2/a/blobs/{digest}")).send().await.unwrap();
    assert_eq!(blob.text().await.unwrap(), "abcd");
}

#[tokio::test]
async fn uploads_that_nobody_works_on_hinder_no_other() {
    let data = tempfile::tempdir().unwrap();
    let served = Served::on(data.path(), Policy::default()).await;
    let first = served.begin("a").await;
    assert_eq!(served.ask("PATCH", &first).body("ab").send().await.unwrap().status(), StatusCode::ACCEPTED);
    for _ in 0..300 {
        served.begin("a").await;
    }
    let digest = Digest::of(b"abcd");
    let put = served.ask("PUT", &format!("{first}?digest={digest}")).body("cd").send().await.unwrap();
    assert_eq!(put.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn a_manifest_that_the_disk_has_changed_is_made_good_by_a_push() {
    let data = tempfile::tempdir().unwrap();
    let served = Served::on(data.path(), Policy::default()).await;
    let digest = served.image("a", "t", "layer").await;
    let file = data.path().join("blobs").join(digest.hex());
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, vec![b' '; bytes.len()]).unwrap();
    assert_eq!(served.status("GET", "/v2/a/manifests/t").await, 404);
    served.image("a", "t", "layer").await;
    assert_eq!(served.status("GET", "/v2/a/manifests/t").await, 200);
}

#[tokio::test]
async fn blobs_are_read_in_ranges_and_removed() {
    let data = tempfile::tempdir().unwrap();
    let served = Served::on(data.path(), Policy::default()).await;
    let path = format!("/v2/a/blobs/{}", served.blob("a", "0123456789").await);
    let head = served.ask("HEAD", &path).send().await.unwrap();
    assert_eq!((header(&head, "content-length"), header(&head, "accept-ranges")), ("10", "bytes"));
    let part = served.ask("GET", &path).header("range", "bytes=3-5").send().await.unwrap();
    assert_eq!((part.status().as_u16(), header(&part, "content-range")), (206, "bytes 3-5/10"));
    assert_eq!(part.text().await.unwrap(), "345");
    let beyond = served.ask("GET", &path).header("range", "bytes=10-").send().await.unwrap();
    assert_eq!((beyond.status().as_u16(), header(&beyond, "content-range")), (416, "bytes */10"));
    assert_eq!(served.status("DELETE", &path).await, 202);
    assert_eq!((served.status("GET", &path).await, served.status("DELETE", &path).await), (404, 404));
}

#[tokio::test]
async fn manifests_need_their_parts_and_are_found_by_tag_and_digest() {
    let data = tempfile::tempdir().unwrap();
    let served = Served::on(data.path(), Policy::default()).await;
    let digest = served.image("app", "v1", "layer").await;
    for reference in ["v1", digest.as_str()] {
        let got = served.ask("GET", &format!("/v2/app/manifests/{reference}")).send().await.unwrap();
        assert_eq!((header(&got, "content-type"), header(&got, "docker-content-digest")), (MANIFEST, digest.as_str()));
        assert_eq!(Digest::of(&got.bytes().await.unwrap()), digest);
    }
    let missing = json!({ "schemaVersion": 2, "layers": [{ "digest": Digest::of(b"none"), "size": 4 }] });
    let refused = served.put("app", "v2", MANIFEST, &missing).await;
    assert_eq!(code(refused).await, (404, "MANIFEST_BLOB_UNKNOWN".to_owned()));
    let other = Digest::of(b"x");
    let refused = served.put("app", other.as_str(), MANIFEST, &json!({ "schemaVersion": 2 })).await;
    assert_eq!(code(refused).await, (400, "DIGEST_INVALID".to_owned()));
    let refused = served.put("app", "v2", MANIFEST, &json!({ "mediaType": INDEX })).await;
    assert_eq!(code(refused).await, (400, "MANIFEST_INVALID".to_owned()));
    let refused = served.put("app", "v2", MANIFEST, &json!({ "x": "y".repeat(5 << 20) })).await;
    assert_eq!(refused.status().as_u16(), 413);
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [{ "digest": digest, "size": 1 }] });
    assert_eq!(served.put("app", "all", INDEX, &index).await.status(), 201);
    assert_eq!(code(served.put("empty", "all", INDEX, &index).await).await.0, 404);

    // A tag goes alone; a manifest takes its tags along.
    served.image("app", "again", "layer").await;
    assert_eq!(served.status("DELETE", "/v2/app/manifests/again").await, 202);
    assert_eq!(served.status("HEAD", "/v2/app/manifests/v1").await, 200);
    assert_eq!(served.status("DELETE", &format!("/v2/app/manifests/{digest}")).await, 202);
    assert_eq!(served.status("HEAD", "/v2/app/manifests/v1").await, 404);
    assert_eq!(served.json("/v2/app/tags/list").await, json!({ "name": "app", "tags": ["all"] }));
    let unknown = served.ask("GET", "/v2/none/tags/list").send().await.unwrap();
    assert_eq!(code(unknown).await, (404, "NAME_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn tags_and_repositories_come_in_pages() {
    let data = tempfile::tempdir().unwrap();
    let served = Served::on(data.path(), Policy::default()).await;
    for tag in ["c", "a", "b"] {
        served.image("app", tag, "layer").await;
    }
    served.image("team/app", "x", "layer").await;
    let first = served.ask("GET", "/v2/app/tags/list?n=2").send().await.unwrap();
    assert_eq!(header(&first, "link"), "</v2/app/tags/list?n=2&last=b>; rel=\"next\"");
    assert!(first.text().await.unwrap().contains(r#"["a","b"]"#));
    let rest = served.ask("GET", "/v2/app/tags/list?n=2&last=b").send().await.unwrap();
    assert_eq!(header(&rest, "link"), "");
    assert!(rest.text().await.unwrap().contains(r#"["c"]"#));
    assert_eq!(served.json("/v2/app/tags/list?n=0").await["tags"], json!([]));
    assert_eq!(served.json("/v2/_catalog").await["repositories"], json!(["app", "team/app"]));
    assert_eq!(served.json("/v2/_catalog?n=1").await["repositories"], json!(["app"]));
}

#[tokio::test]
async fn referrers_are_listed_and_filtered() {
    let data = tempfile::tempdir().unwrap();
    let served = Served::on(data.path(), Policy::default()).await;
    let subject = served.image("app", "v1", "layer").await;
    let config = served.blob("app", "{}").await;
    let about = |kind: &str| {
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "annotations": { "kind": kind },
            "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2 },
            "layers": [], "subject": { "mediaType": MANIFEST, "digest": subject, "size": 1 },
        })
    };
    for (tag, kind) in [("sbom", "x/sbom"), ("sig", "x/signature")] {
        let put = served.put("app", tag, MANIFEST, &about(kind)).await;
        assert_eq!((put.status().as_u16(), header(&put, "oci-subject")), (201, subject.as_str()));
    }
    let all = served.json(&format!("/v2/app/referrers/{subject}")).await;
    assert_eq!((all["mediaType"].as_str(), all["manifests"].as_array().unwrap().len()), (Some(INDEX), 2));
    let some = served.ask("GET", &format!("/v2/app/referrers/{subject}?artifactType=x/sbom")).send().await.unwrap();
    assert_eq!(header(&some, "oci-filters-applied"), "artifactType");
    let some: Value = serde_json::from_str(&some.text().await.unwrap()).unwrap();
    assert_eq!(
        (some["manifests"].as_array().unwrap().len(), &some["manifests"][0]["annotations"]["kind"]),
        (1, &json!("x/sbom"))
    );
    let none = served.json(&format!("/v2/none/referrers/{subject}")).await;
    assert_eq!(none["manifests"], json!([]));
    assert_eq!(served.status("DELETE", "/v2/app/manifests/sbom").await, 202);
    assert_eq!(served.json(&format!("/v2/app/referrers/{subject}")).await["manifests"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_nobody_needs_is_collected_at_the_next_start() {
    let data = tempfile::tempdir().unwrap();
    let kept = Policy { untagged: None, unused: Duration::ZERO, uploads: Duration::ZERO };
    let blobs = || std::fs::read_dir(data.path().join("blobs")).unwrap().count();
    let collected = async |policy: Policy, wanted: usize| {
        let served = Served::on(data.path(), policy).await;
        for _ in 0..200 {
            if blobs() == wanted {
                return served;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} blobs are left, not {wanted}", blobs());
    };
    let served = Served::on(data.path(), Policy::default()).await;
    let old = served.image("app", "v1", "old layer").await;
    served.image("app", "v1", "new layer").await;
    let stray = served.blob("app", "stray").await;
    let upload = served.begin("app").await;
    assert_eq!(blobs(), 6);
    drop(served);
    // Untagged manifests stay as long as the policy says, with what they need.
    let served = collected(kept, 5).await;
    assert_eq!(served.status("HEAD", &format!("/v2/app/blobs/{stray}")).await, 404);
    assert_eq!(served.status("HEAD", &upload).await, 404);
    assert_eq!(served.status("HEAD", &format!("/v2/app/manifests/{old}")).await, 200);
    drop(served);
    let served = collected(Policy { untagged: Some(Duration::ZERO), ..kept }, 3).await;
    assert_eq!(served.status("HEAD", &format!("/v2/app/manifests/{old}")).await, 404);
    let new = served.json("/v2/app/manifests/v1").await;
    let layer = new["layers"][0]["digest"].as_str().unwrap();
    let text = served.ask("GET", &format!("/v2/app/blobs/{layer}")).send().await.unwrap().text().await.unwrap();
    assert_eq!(text, "new layer");
    assert_eq!(served.status("DELETE", "/v2/app/manifests/v1").await, 202);
    drop(served);
    let served = collected(Policy { untagged: Some(Duration::ZERO), ..kept }, 0).await;
    assert_eq!(served.json("/v2/_catalog").await["repositories"], json!([]));
}
