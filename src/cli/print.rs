//! Output of the commands on standard output: tables for people, JSON for programs.

use std::io::{ErrorKind, Write};
use std::iter::zip;

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::fatal_error::FatalError;
use crate::service::api_keys::ApiKeyWithSecret;

/// The format of the output of a command.
#[derive(Clone, Copy)]
pub enum Format {
    Table,
    Json,
}

impl Format {
    /// The flag is `--json`.
    pub fn new(json: bool) -> Self {
        if json { Self::Json } else { Self::Table }
    }
}

/// Prints text unchanged. A closed pipe is not an error, because its reader may need only the first lines.
pub fn text(text: &str) -> Result<(), FatalError> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(FatalError::Other(format!("Cannot write to standard output: {error}.")))
        }
        _ => Ok(()),
    }
}

/// Prints rows with these columns, as a table or as an array of objects. The values are strings, numbers or null. Null
/// becomes an empty cell in a table.
///
/// For example, the `createdAt` column becomes the JSON property `createdAt` or the table heading `CREATED AT`.
pub fn rows<const COLUMNS: usize>(
    format: Format,
    columns: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [Value; COLUMNS]>,
) -> Result<(), FatalError> {
    match format {
        Format::Json => {
            let objects: Value = rows.into_iter().map(|row| Value::from_iter(zip(columns, row))).collect();
            text(&format!("{objects}\n"))
        }
        Format::Table => table(columns, rows.into_iter().map(|row| row.map(cell))),
    }
}

fn table<const COLUMNS: usize>(
    columns: [&str; COLUMNS],
    rows: impl Iterator<Item = [String; COLUMNS]>,
) -> Result<(), FatalError> {
    let lines: Vec<[String; COLUMNS]> = std::iter::once(columns.map(title)).chain(rows).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    for line in &lines {
        let padded = zip(line, widths).map(|(cell, width)| format!("{cell:<width$}"));
        text(&format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end()))?;
    }
    Ok(())
}

fn cell(value: Value) -> String {
    if value.is_null() { String::new() } else { value.as_str().map_or_else(|| value.to_string(), str::to_owned) }
}

fn title(column: &str) -> String {
    let spaced = column.chars().flat_map(|char| char.is_uppercase().then_some(' ').into_iter().chain([char]));
    spaced.collect::<String>().to_uppercase()
}

/// Prints the secret of a new key, with the id and the name of the new operator or key.
pub fn new_key(format: Format, id: &str, name: &str, key: &ApiKeyWithSecret) -> Result<(), FatalError> {
    let secret = key.secret.expose_secret();
    text(&match format {
        Format::Json => format!("{}\n", json!({ "id": id, "name": name, "key": secret })),
        Format::Table => {
            format!("{id}  {name}\n\n    {secret}\n\nStore the key in a safe place. It is not shown again.\n")
        }
    })
}
