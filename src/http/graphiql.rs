//! GraphiQL, to explore the schema in a browser.

use axum::Router;
use axum::response::Html;
use axum::routing::get;

use super::State;

pub fn routes() -> Router<State> {
    Router::new().route("/graphiql", get(page))
}

async fn page() -> Html<&'static str> {
    Html("todo")
}
