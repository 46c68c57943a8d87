//! GraphiQL, to explore the schema in a browser.
//!
//! build.rs builds the page from `web/` and lists its files, so the binary contains all files of the page. In a build
//! without these files, `/graphiql` is a single page that says how to build them.

use std::io::{self, Write};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, get};
use flate2::Compression;
use flate2::write::GzEncoder;
use tower_http::set_header::SetResponseHeaderLayer;

use super::State;

/// The files of the page: the path of each file in the folder of the built page, and its content.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/web.rs"));

/// Allows the page to load files from this server, to send requests to this server, and to use inline styles and
/// `data:` URLs for fonts and images. Forbids everything else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     font-src 'self' data:; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// Returns the routes of GraphiQL. `introspection` is the result of the introspection query. The result is served
/// without a key, because the schema is public. The page therefore shows the documentation before a key is typed.
pub fn routes(introspection: String) -> Router<State> {
    let redirect = || get(async || Redirect::temporary("/graphiql"));
    let introspection = File::new("application/json", introspection.into());
    let mut router = Router::new()
        .route("/", redirect())
        .route("/graphiql/", redirect())
        .route("/graphiql/introspection.json", introspection.route());
    for (path, content) in FILES.iter().copied() {
        let url = format!("/{}", path.trim_end_matches("/index.html"));
        router = router.route(&url, File::new(media_type(path), Bytes::from_static(content)).route());
    }
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        router = router.layer(SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value)));
    }
    router
}

/// A file that anybody may request. It is compressed once, because compressing it for each request would let clients
/// without a key use up the processor.
struct File {
    media_type: &'static str,
    content: Bytes,
    /// Set at the first request of a client that accepts gzip. `None` if the compression failed.
    compressed: OnceLock<Option<Bytes>>,
}

impl File {
    fn new(media_type: &'static str, content: Bytes) -> Self {
        Self { media_type, content, compressed: OnceLock::new() }
    }

    fn route(self) -> MethodRouter<State> {
        let file = Arc::new(self);
        get(async move |headers: HeaderMap| file.response(accepts_gzip(&headers)))
    }

    fn response(&self, is_compressed: bool) -> Response {
        let headers = [(header::CONTENT_TYPE, self.media_type), (header::VARY, "accept-encoding")];
        let compressed = || self.compressed.get_or_init(|| gzip(&self.content).ok()).clone();
        match is_compressed.then(compressed).flatten() {
            Some(content) => (headers, [(header::CONTENT_ENCODING, "gzip")], content).into_response(),
            None => (headers, self.content.clone()).into_response(),
        }
    }
}

fn gzip(content: &[u8]) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content)?;
    Ok(encoder.finish()?.into())
}

/// Returns true if `Accept-Encoding` names gzip and does not reject it with `q=0`.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok());
        name.trim().eq_ignore_ascii_case("gzip") && weight != Some(0.0)
    })
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        _ => "application/octet-stream",
    }
}
