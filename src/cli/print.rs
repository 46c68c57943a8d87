//! Output of the commands on standard output: tables for people, JSON for programs.

use std::io::Write;

use clap::Args;
use secrecy::ExposeSecret;
use serde_json::json;

use crate::service::api_keys::NewApiKey;

#[derive(Args, Clone, Copy, Debug)]
pub struct Format {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints text as it is. Ignores errors: the reader of a pipe may have closed it.
pub fn text(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// Prints rows with these columns, as a table or as an array of objects. `None` is an empty cell or null.
///
/// `createdAt` is the property `createdAt` in JSON, and the title `CREATED AT` above a column.
pub fn rows<const COLUMNS: usize>(
    format: Format,
    columns: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [Option<String>; COLUMNS]>,
) {
    if format.json {
        let object = |row| std::iter::zip(columns, row).map(|(name, value)| (name.to_owned(), json!(value)));
        let objects: Vec<serde_json::Map<_, _>> = rows.into_iter().map(|row| object(row).collect()).collect();
        text(&format!("{}\n", json!(objects)));
        return;
    }
    let cells = rows.into_iter().map(|row| row.map(Option::unwrap_or_default));
    let lines: Vec<[String; COLUMNS]> = std::iter::once(columns.map(title)).chain(cells).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    for line in &lines {
        let padded = line.iter().enumerate().map(|(column, cell)| format!("{cell:<width$}", width = width(column)));
        text(&format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end()));
    }
}

fn title(column: &str) -> String {
    let spaced = column.chars().flat_map(|char| char.is_uppercase().then_some(' ').into_iter().chain([char]));
    spaced.collect::<String>().to_uppercase()
}

/// Prints a new key with its secret, under the id and name of what was created.
pub fn new_key(format: Format, id: &str, name: &str, key: &NewApiKey) {
    let secret = key.secret.expose_secret();
    if format.json {
        text(&format!("{}\n", json!({ "id": id, "name": name, "key": secret })));
    } else {
        text(&format!("{id}  {name}\n\n    {secret}\n\nStore the key in a safe place. It is not shown again.\n"));
    }
}
