//! Links of what is proxied, rewritten so that they lead back through the proxy.

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http_body_util::{BodyExt, Limited};

use crate::http::body::ResponseBody;

/// A longer page is cut by an error: nobody proxies such pages for their links.
const MAX_PAGE_BYTES: usize = 16 * 1024 * 1024;
/// Attributes that hold URLs.
const URL_ATTRIBUTES: [&str; 10] =
    ["href", "src", "action", "formaction", "cite", "background", "poster", "data", "longdesc", "manifest"];

/// The URL as the client must ask for it; `None` if it leads elsewhere or needs no change.
pub(super) fn rewrite_url(url: &str, prefix: &str, host: &str, port: u16) -> Option<String> {
    if url.starts_with(prefix) {
        return None;
    }
    if url.starts_with('/') && !url.starts_with("//") {
        return Some(format!("{prefix}{url}"));
    }
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let own = [format!("{host}:{port}"), host.to_owned(), format!("[{host}]:{port}"), format!("[{host}]")];
    let path = if path.is_empty() { "/" } else { path };
    own.iter().any(|known| known == authority).then(|| format!("{prefix}{path}"))
}

/// Rewrites the links of a page.
pub(super) async fn rewrite_response(
    response: Response<ResponseBody>,
    prefix: String,
    host: String,
    port: u16,
) -> Response<ResponseBody> {
    let (mut parts, body) = response.into_parts();
    match Limited::new(body, MAX_PAGE_BYTES).collect().await {
        Ok(collected) => {
            let page = collected.to_bytes();
            let rewritten = match std::str::from_utf8(&page) {
                Ok(text) => Bytes::from(rewrite_page(text, |url| rewrite_url(url, &prefix, &host, port))),
                Err(_) => page,
            };
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(rewritten.len()));
            Response::from_parts(parts, rewritten.into())
        }
        Err(error) => Response::from_parts(parts, ResponseBody::stream(futures::stream::iter([Err(error)]))),
    }
}

/// Copies the page; within tags, quoted values of URL attributes pass through `rewrite`.
fn rewrite_page(page: &str, rewrite: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(page.len() + page.len() / 8);
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let end = tag_end(tag);
        let (tag, after) = tag.split_at(end);
        rewrite_tag(tag, &rewrite, &mut out);
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Length of the tag, quotes respected.
fn tag_end(tag: &str) -> usize {
    let mut quote = None;
    for (at, character) in tag.char_indices() {
        match (quote, character) {
            (None, '>') => return at + 1,
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            _ => {}
        }
    }
    tag.len()
}

fn rewrite_tag(tag: &str, rewrite: &impl Fn(&str) -> Option<String>, out: &mut String) {
    let mut rest = tag;
    while let Some(equals) = rest.find('=') {
        let (name, tail) = rest.split_at(equals);
        out.push_str(name);
        out.push('=');
        let value = tail.get(1..).unwrap_or_default();
        let trimmed = value.trim_start();
        out.push_str(value.get(..value.len() - trimmed.len()).unwrap_or_default());
        let attribute = name.trim_end().rsplit(|c: char| c.is_whitespace() || c == '/').next().unwrap_or_default();
        let is_url = URL_ATTRIBUTES.iter().any(|known| known.eq_ignore_ascii_case(attribute));
        let quote = trimmed.chars().next().filter(|c| matches!(c, '"' | '\''));
        let Some(quote) = quote else {
            rest = trimmed;
            continue;
        };
        let inner = trimmed.get(1..).unwrap_or_default();
        let Some(close) = inner.find(quote) else {
            rest = trimmed;
            break;
        };
        let (url, after) = inner.split_at(close);
        out.push(quote);
        match rewrite(url).filter(|_| is_url) {
            Some(rewritten) => out.push_str(&rewritten),
            None => out.push_str(url),
        }
        rest = after;
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_the_backend_lead_back_through_the_proxy() {
        let rewrite = |url| rewrite_url(url, "/p", "10.0.0.1", 80);
        assert_eq!(rewrite("/x?y").as_deref(), Some("/p/x?y"));
        assert_eq!(rewrite("http://10.0.0.1:80/x").as_deref(), Some("/p/x"));
        assert_eq!(rewrite("http://10.0.0.1").as_deref(), Some("/p/"));
        for kept in ["x", "http://elsewhere/x", "//cdn/x", "#top", "/p/x"] {
            assert_eq!(rewrite(kept), None, "{kept}");
        }
    }

    #[test]
    fn only_links_in_tags_change() {
        let page = r#"<p>a = "/b"</p><a class="/c" href="/rewriteme">test</a><img src='/i.png' alt=x><a title="a>b" href=/bare>"#;
        let wanted = r#"<p>a = "/b"</p><a class="/c" href="/p/rewriteme">test</a><img src='/p/i.png' alt=x><a title="a>b" href=/bare>"#;
        assert_eq!(rewrite_page(page, |url| rewrite_url(url, "/p", "h", 80)), wanted);
    }

    #[test]
    fn broken_pages_are_copied() {
        for page in ["<", "<a href=\"/x", "a<b", "<a href=>", "é<é href='"] {
            assert_eq!(rewrite_page(page, |_| Some("!".into())), page);
        }
    }
}
