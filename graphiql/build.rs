//! Whether the assets of GraphiQL are there to be embedded: `npm ci --ignore-scripts --prefix graphiql` fetches them.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=graphiql");
    println!("cargo::rustc-check-cfg=cfg(graphiql)");
    if Path::new("graphiql/node_modules/graphiql/graphiql.min.js").exists() {
        println!("cargo::rustc-cfg=graphiql");
    }
}
