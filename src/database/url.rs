//! Parses the URL of the database. All other modules get the parts of the URL, such as the SQLite file, from this
//! module.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use reqwest::Url;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgSslMode};
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{self, ConnectOptions};
use sea_orm::{DbErr, RuntimeErr};

use super::MAX_DATABASE_WAIT;
use crate::config::DATABASE_URL;

/// The address of a database and the settings of a connection.
#[derive(Clone)]
pub(super) enum DatabaseOptions {
    Postgres(PgConnectOptions),
    Sqlite(SqliteConnectOptions),
}

impl DatabaseOptions {
    /// Parses `postgres://…` or `sqlite://…`. With the returned options, a connection creates the SQLite file if it
    /// does not exist.
    pub(super) fn parse(url: &str) -> Result<Self, DbErr> {
        let address = Self::parse_address(url)?;
        Ok(address.map_sqlite(|options| options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal)))
    }

    /// Parses a URL like [`parse`](Self::parse). The returned options open a SQLite file for reading only, and do not
    /// create the file. For PostgreSQL, they are the same as those of `parse`.
    pub(super) fn parse_read_only(url: &str) -> Result<Self, DbErr> {
        // Without a journal mode, because setting the mode can write to the file.
        Ok(Self::parse_address(url)?.map_sqlite(|options| options.create_if_missing(false).read_only(true)))
    }

    /// Parses a URL. The returned options have the settings of every connection.
    fn parse_address(url: &str) -> Result<Self, DbErr> {
        // By default, sqlx logs the text of each statement, and warns about slow statements.
        Ok(if url.starts_with("sqlite:") {
            let options = SqliteConnectOptions::from_str(url).map_err(failed_to_connect)?.disable_statement_logging();
            // With `Full`, a commit that was acknowledged survives a power failure.
            let options = options.foreign_keys(true).synchronous(SqliteSynchronous::Full);
            Self::Sqlite(options.busy_timeout(MAX_DATABASE_WAIT))
        } else {
            let options = PgConnectOptions::from_str(url).map_err(failed_to_connect)?.disable_statement_logging();
            // sqlx keeps the brackets around an IPv6 address, and would look up the address with its brackets as a host
            // name.
            let host = options.get_host().trim_matches(['[', ']']).to_owned();
            let name = options.get_application_name().unwrap_or("vivamo").to_owned();
            Self::Postgres(options.host(&host).application_name(&name))
        })
    }

    /// Returns options that do not create a SQLite file. Has no effect for PostgreSQL.
    pub(super) fn existing(self) -> Self {
        self.map_sqlite(|options| options.create_if_missing(false))
    }

    /// Changes the options of SQLite. Has no effect for PostgreSQL.
    fn map_sqlite(self, change: impl FnOnce(SqliteConnectOptions) -> SqliteConnectOptions) -> Self {
        match self {
            Self::Postgres(options) => Self::Postgres(options),
            Self::Sqlite(options) => Self::Sqlite(change(options)),
        }
    }
}

pub(super) fn failed_to_connect(error: sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error)))
}

/// Parses the URL without connecting. The error says what to change, and quotes no password.
pub fn check_url(url: &str) -> Result<(), String> {
    if url.starts_with(['"', '\'']) {
        return Err(format!(
            "{DATABASE_URL} is in quotes. Remove the quotes, because they count as part of the value."
        ));
    }
    if !["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(format!("{DATABASE_URL} must start with sqlite:// or postgres://"));
    }
    let is_sqlite = url.starts_with("sqlite:");
    let options = DatabaseOptions::parse(url).map_err(|error| {
        let mut cause = error.to_string();
        if let DbErr::Conn(RuntimeErr::SqlxError(error)) = error
            && let sqlx::Error::Configuration(error) = &*error
        {
            cause = error.to_string();
        }
        let hint = if is_sqlite {
            "Use sqlite://FILE. Write a % in the name of the file as %25."
        } else if Url::parse(url).is_ok() {
            "Check its parameters after the `?`."
        } else {
            ENCODE_PASSWORD
        };
        format!("{DATABASE_URL} is not valid: {cause}. {hint}")
    })?;
    match options {
        DatabaseOptions::Sqlite(options) if is_in_memory(options.get_filename()) => {
            Err(format!("{DATABASE_URL} names no file, so nothing would be kept. Use sqlite://FILE"))
        }
        DatabaseOptions::Sqlite(_) => match rejected_sqlite_parameter(url) {
            Some(parameter) => Err(format!("{DATABASE_URL} has the parameter `{parameter}`. Remove it.")),
            None => Ok(()),
        },
        DatabaseOptions::Postgres(_) if has_cut_password(url) => Err(format!(
            "{DATABASE_URL} is not valid: an `@` follows the host, so the password probably ends too early. {ENCODE_PASSWORD}"
        )),
        DatabaseOptions::Postgres(options) => match (unknown_postgres_parameter(url), tls_problem(&options, url)) {
            (Some(name), _) => Err(format!(
                "{DATABASE_URL} has the parameter `{name}`, which this service does not know. Remove it, or correct its name."
            )),
            (None, Some(problem)) => Err(format!("{DATABASE_URL}: {problem}")),
            (None, None) => Ok(()),
        },
    }
}

const ENCODE_PASSWORD: &str =
    "Percent-encode special characters in the user and the password: # is %23, / is %2F, ? is %3F, @ is %40, % is %25.";

/// The file of a SQLite URL, or `None` for another URL.
pub fn sqlite_file(url: &str) -> Option<PathBuf> {
    match DatabaseOptions::parse(url) {
        Ok(DatabaseOptions::Sqlite(options)) => Some(options.get_filename().to_owned()),
        Ok(DatabaseOptions::Postgres(_)) | Err(_) => None,
    }
}

fn is_in_memory(file: &Path) -> bool {
    let file = file.to_string_lossy();
    file.is_empty() || file == ":memory:" || file.starts_with("file:sqlx-in-memory")
}

/// Returns the first parameter of a SQLite URL other than `mode=rwc`, which is what the service does. With `immutable`
/// or `vfs`, SQLite may use the file without locks, so writes of several processes could destroy it. With `mode=ro`,
/// the service could not write, and with `mode=memory`, nothing would be kept.
fn rejected_sqlite_parameter(url: &str) -> Option<&str> {
    let (_, parameters) = url.split_once('?')?;
    parameters.split('&').find(|parameter| !["", "mode=rwc"].contains(parameter))
}

/// The parameters of a PostgreSQL URL that sqlx knows, and `options[NAME]`.
const POSTGRES_PARAMETERS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// Returns the first parameter that sqlx does not know. sqlx would ignore it, and would write its value to the log.
/// Hides the name after a `password`, because it may be the rest of a password with an `&`.
fn unknown_postgres_parameter(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let names: Vec<_> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
    let is_unknown = |name: &String| !POSTGRES_PARAMETERS.contains(&name.as_str()) && !name.starts_with("options[");
    let index = names.iter().position(is_unknown)?;
    let follows_password = names[..index].iter().any(|name| name == "password");
    Some(if follows_password { "…".to_owned() } else { names[index].clone() })
}

/// Returns a message if sqlx would protect the connection less than its TLS parameters suggest. sqlx itself accepts
/// such parameters.
fn tls_problem(options: &PgConnectOptions, url: &str) -> Option<&'static str> {
    let has_root = Url::parse(url).is_ok_and(|url| {
        url.query_pairs().any(|(name, _)| ["sslrootcert", "ssl-root-cert", "ssl-ca"].contains(&name.as_ref()))
    });
    match options.get_ssl_mode() {
        PgSslMode::Allow => Some("With sslmode=allow, TLS would never be used. Use sslmode=prefer."),
        PgSslMode::VerifyCa | PgSslMode::VerifyFull => None,
        PgSslMode::Disable | PgSslMode::Prefer | PgSslMode::Require => has_root.then_some(
            "The certificate of the server is checked only with sslmode=verify-ca or sslmode=verify-full. Add one of them, or \
             remove sslrootcert.",
        ),
    }
}

/// Returns true if an unencoded special character probably cuts the password short. For example, the host of
/// `postgres://ada:12/34@host/database` is `ada`.
fn has_cut_password(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let parameters = url.query().filter(|parameters| !parameters.contains("user=")).unwrap_or_default();
    url.username().is_empty()
        && [url.path(), parameters, url.fragment().unwrap_or_default()].iter().any(|part| part.contains('@'))
}

/// Creates the file of a new SQLite database, readable and writable only for its owner. SQLite gives the same
/// permissions to the `-wal` and `-shm` files that it creates later. Does nothing if the file exists or cannot be
/// created. If the file cannot be created, SQLite reports the reason when it opens the file.
pub(super) fn create_private(file: &Path) {
    drop(OpenOptions::new().write(true).create_new(true).mode(0o600).open(file));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_sqlite_url_is_percent_decoded() {
        for (url, file) in [
            ("sqlite://vivamo.db", Some("vivamo.db")),
            ("sqlite:vivamo.db", Some("vivamo.db")),
            ("sqlite:///data/vivamo.db?mode=rwc", Some("/data/vivamo.db")),
            ("sqlite:///my%20data/w%23%3F%25.db", Some("/my data/w#?%.db")),
            ("sqlite:///my data/w.db", Some("/my data/w.db")),
            ("sqlite:///名前/w.db", Some("/名前/w.db")),
            ("postgres://localhost/vivamo", None),
        ] {
            assert_eq!(sqlite_file(url).as_deref(), file.map(Path::new), "{url}");
            assert_eq!(check_url(url), Ok(()));
        }
    }

    #[test]
    fn a_postgres_url_with_special_characters_is_parsed_or_rejected_with_a_hint() {
        for (url, (user, host)) in [
            ("postgres://ada:p%23%2F%3F%40%25@localhost/x", ("ada", "localhost")),
            ("postgres://ada:p@w@localhost/x", ("ada", "localhost")),
            ("postgres://ada:p%w@localhost/x", ("ada", "localhost")),
            ("postgres://ada:p w:x@localhost/x", ("ada", "localhost")),
            ("postgres://ada%40b@localhost/x", ("ada@b", "localhost")),
            ("postgres://ada@[::1]:5433/x", ("ada", "::1")),
            ("postgres://ada@[2001:db8::7]/x?sslmode=require", ("ada", "2001:db8::7")),
            ("postgres://ada@localhost/x?sslmode=verify-ca&sslrootcert=ca.pem", ("ada", "localhost")),
            ("postgres://localhost/x?user=ada@b", ("ada@b", "localhost")),
            ("postgresql://ada@localhost", ("ada", "localhost")),
        ] {
            assert_eq!(check_url(url), Ok(()), "{url}");
            let Ok(DatabaseOptions::Postgres(options)) = DatabaseOptions::parse(url) else {
                panic!("{url} is not parsed")
            };
            assert_eq!((options.get_username(), options.get_host()), (user, host));
        }
        for url in ["ada:p#w", "ada:p/w", "ada:p?w", "ada:12#w", "ada:12/w", "ada:12?w"] {
            let message = check_url(&format!("postgres://{url}@localhost/x")).unwrap_err();
            assert!(message.contains(ENCODE_PASSWORD), "{url}: {message}");
        }
        for (url, words) in [
            ("postgres://ada@localhost/x?sslmode=bogus", "\"bogus\" for `ssl_mode`. Check its parameters"),
            ("postgres://ada@localhost:54321234/x", "invalid port number. Percent-encode"),
            ("postgres://ada@localhost/x?port=x", "invalid digit found in string. Check its parameters"),
            ("postgres://ada@localhost/x?sslmode=allow", "never be used"),
            ("postgres://ada@localhost/x?sslrootcert=ca.pem", "sslmode=verify-full"),
            ("postgres://ada@localhost/x?sslmode=require&sslrootcert=ca.pem", "sslmode=verify-full"),
            ("'postgres://ada@localhost/x'", "is in quotes"),
            ("\"sqlite://vivamo.db\"", "is in quotes"),
            ("sqlite://x.db?mode=bogus", "\"bogus\""),
            ("sqlite://x.db?mode=ro", "`mode=ro`. Remove it"),
            ("sqlite://x.db?mode=rwc&immutable=1", "`immutable=1`. Remove it"),
            ("sqlite://x.db?cache=shared", "`cache=shared`. Remove it"),
            ("sqlite://x.db?vfs=unix-none", "`vfs=unix-none`. Remove it"),
            ("sqlite://x%ff.db", "utf-8"),
            ("sqlite://%3Amemory%3A", "names no file"),
        ] {
            let message = check_url(url).unwrap_err();
            assert!(message.starts_with(&DATABASE_URL.to_string()) && message.contains(words), "{url}: {message}");
        }
    }
}
