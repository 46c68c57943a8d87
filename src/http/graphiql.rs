//! GraphiQL, to explore the schema in a browser. Everything it needs is in the binary.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Redirect};
use axum::routing::get;
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use super::State;

/// The page may load what this server serves, and talk to this server.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     font-src 'self' data:; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

#[cfg(graphiql)]
const PAGE: &str = include_str!("../../graphiql/index.html");

#[cfg(not(graphiql))]
const PAGE: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>GraphiQL</title>\
     <h1>GraphiQL is not part of this build</h1>\
     <p>It is embedded when its files are there at build time. Fetch them with npm, then build again:</p>\
     <pre>npm ci --ignore-scripts --prefix graphiql\ncargo build --release</pre>\
     <p>The API itself is complete: send your requests to <code>POST /graphql</code>.</p></html>";

#[cfg(graphiql)]
const FILES: &[(&str, &str, &[u8])] = &[
    ("/graphiql/page.js", "text/javascript; charset=utf-8", include_bytes!("../../graphiql/page.js")),
    ("/graphiql/page.css", "text/css; charset=utf-8", include_bytes!("../../graphiql/page.css")),
    (
        "/graphiql/react.js",
        "text/javascript; charset=utf-8",
        include_bytes!("../../graphiql/node_modules/react/umd/react.production.min.js"),
    ),
    (
        "/graphiql/react-dom.js",
        "text/javascript; charset=utf-8",
        include_bytes!("../../graphiql/node_modules/react-dom/umd/react-dom.production.min.js"),
    ),
    (
        "/graphiql/graphiql.js",
        "text/javascript; charset=utf-8",
        include_bytes!("../../graphiql/node_modules/graphiql/graphiql.min.js"),
    ),
    (
        "/graphiql/graphiql.css",
        "text/css; charset=utf-8",
        include_bytes!("../../graphiql/node_modules/graphiql/graphiql.min.css"),
    ),
];

#[cfg(not(graphiql))]
const FILES: &[(&str, &str, &[u8])] = &[];

/// The paths of GraphiQL. `introspection` is what the schema says of itself: the schema is no secret, so the
/// documentation is there before a key is typed.
pub fn routes(introspection: String) -> Router<State> {
    let introspection: Arc<str> = introspection.into();
    let to_page = || get(async || Redirect::temporary("/graphiql"));
    let mut router = Router::new()
        .route("/", to_page())
        .route("/graphiql/", to_page())
        .route("/graphiql", get(async || Html(PAGE)))
        .route(
            "/graphiql/introspection.json",
            get(async move || ([(header::CONTENT_TYPE, "application/json")], introspection.to_string())),
        );
    for (path, media_type, content) in FILES.iter().copied() {
        router = router.route(path, get(async move || ([(header::CONTENT_TYPE, media_type)], content).into_response()));
    }
    [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ]
    .into_iter()
    .fold(router.layer(CompressionLayer::new()), |router, (name, value): (HeaderName, &'static str)| {
        router.layer(SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value)))
    })
}
