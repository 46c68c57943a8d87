//! GraphiQL, to explore the schema in a browser.
//!
//! build.rs builds the page from `web/` and lists its files, so the binary contains all files of the page. In a build
//! without these files, `/graphiql` is a single page that says how to build them.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::Redirect;
use axum::routing::get;
use tower_http::compression::CompressionLayer;
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
    let introspection: Arc<str> = introspection.into();
    let redirect = || get(async || Redirect::temporary("/graphiql"));
    let mut router = Router::new().route("/", redirect()).route("/graphiql/", redirect()).route(
        "/graphiql/introspection.json",
        get(async move || ([(header::CONTENT_TYPE, "application/json")], introspection.to_string())),
    );
    for (path, content) in FILES.iter().copied() {
        let url = format!("/{}", path.trim_end_matches("/index.html"));
        router = router.route(&url, get(async move || ([(header::CONTENT_TYPE, media_type(path))], content)));
    }
    router = router.layer(CompressionLayer::new());
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        router = router.layer(SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value)));
    }
    router
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        _ => "application/octet-stream",
    }
}
