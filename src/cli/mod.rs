//! The command line. The commands `serve`, `operator`, `key`, `customer`, `webhook` and `backup` have a file each. This
//! file parses the arguments, runs the other commands itself, and decides which failures are wrong usage.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong arguments or settings. Results go to standard output, errors to standard
//! error.

mod backup;
mod customers;
mod keys;
mod operators;
mod print;
mod serve;
mod variables;
mod webhook;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use entity::deployment::Environment;
use entity::value::{DisplayName, OperatorId};

use crate::config::{ServeSettings, Settings};
use crate::database::{self, DatabaseTimeouts};
use crate::fatal_error::FatalError;
use crate::graphql;
use crate::keyed_hash::KeyedHasher;
use crate::open::{self, DatabaseSettings, NO_TABLES, Opened, PendingMigrations, SearchWords};
use crate::service::{Caller, ServiceSettings, Services};
use crate::telemetry::{self, Log};

/// The customer records of the Vivamo payments platform
#[derive(Debug, Parser)]
#[command(
    name = "vivamo",
    version = env!("VIVAMO_VERSION"),
    after_help = "Without a command, vivamo serves the API and accepts the options of `vivamo serve`."
)]
pub struct Cli {
    #[command(flatten)]
    settings: Settings,
    /// The options of `serve`, for `vivamo` without a command.
    #[command(flatten)]
    serve: ServeSettings,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API
    Serve(Box<ServeSettings>),
    /// Apply pending database migrations. Needed only in production: in sandbox, every command that opens the database
    /// applies them, except `migrate --check` and `backup`
    Migrate {
        /// Only list the pending migrations or other pending work, and exit with 1 if there is any
        #[arg(long)]
        check: bool,
    },
    /// Copy a SQLite database into a new file, while servers may use it. Fails for PostgreSQL: use pg_dump
    Backup {
        /// File to create
        file: PathBuf,
    },
    /// Replace the secret of the database by VIVAMO_KEY_SECRET (--key-secret). Without the current secret in
    /// VIVAMO_KEY_SECRET_OLD (--key-secret-old), all API keys stop working
    RotateKeySecret,
    /// Create, list, change, suspend or resume operators (the businesses that call the API), or disconnect their
    /// customers
    Operator(operators::OperatorArgs),
    /// Create, list or revoke API keys
    Key(keys::KeyArgs),
    /// Erase customers
    Customer(customers::CustomerArgs),
    /// Receive the deliveries of a webhook on this machine, for developers
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// Print the GraphQL schema
    #[command(help_template = "{about-with-newline}\nUsage: vivamo schema\n")]
    Schema,
    /// Print a completion script for a shell. In bash, load it with: source <(vivamo completions bash)
    #[command(help_template = "{about-with-newline}\nUsage: vivamo completions <SHELL>\n\nArguments:\n{positionals}\n")]
    Completions { shell: Shell },
}

impl Cli {
    /// Parses the arguments and the environment. Prints a message and exits for wrong usage, `--help` and `--version`.
    pub fn parse_or_exit() -> Self {
        let command = Self::command().mut_args(|arg| {
            let is_of_serve = is_serve_option(arg.get_id().as_str());
            arg.hide(is_of_serve)
        });
        let mut command = ignore_serve_variables(variables::ignore_empty(command));
        let matches = command.try_get_matches_from_mut(std::env::args_os()).and_then(reject_misplaced_options);
        matches.and_then(|matches| Self::from_arg_matches(&matches)).unwrap_or_else(|mut error| {
            variables::name_source(&command, &mut error);
            error.format(&mut command).exit()
        })
    }

    /// Runs the command. Returns the log of a server: see [`serve::run`].
    pub async fn run(self) -> Result<Option<Log>, FatalError> {
        let Self { mut settings, serve, command } = self;
        let command = command.unwrap_or(Command::Serve(Box::new(serve)));
        if !matches!(command, Command::Webhook(_) | Command::Schema | Command::Completions { .. }) {
            let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
            let variables = std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value)));
            variables::reject_unknown(&variables::names(&Self::command()), variables).map_err(FatalError::Usage)?;
            settings = settings.read_files().map_err(FatalError::Usage)?;
            database::check_url(&settings.database_url).map_err(FatalError::Usage)?;
            settings.check().map_err(FatalError::Usage)?;
        }
        match command {
            Command::Serve(serve) => return Ok(Some(serve::run(settings, *serve).await?)),
            Command::Migrate { check: false } => migrate(&settings).await?,
            Command::Migrate { check: true } => list_pending(&settings).await?,
            Command::Backup { file } => backup::run(&settings.database_url, &file).await?,
            Command::RotateKeySecret => rotate_key_secret(&settings).await?,
            Command::Operator(args) => operators::run(args, &*open_services(&settings).await?).await?,
            Command::Key(args) => keys::run(args, &*open_services(&settings).await?).await?,
            Command::Customer(args) => customers::run(args, &*open_services(&settings).await?).await?,
            Command::Webhook(command) => webhook::run(command).await?,
            Command::Schema => print::text(&graphql::sdl())?,
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "vivamo", &mut script);
                print::text(&String::from_utf8_lossy(&script))?;
            }
        }
        Ok(None)
    }
}

fn is_serve_option(id: &str) -> bool {
    let serve = ServeSettings::augment_args(clap::Command::new("serve"));
    serve.get_arguments().any(|arg| arg.get_id() == id)
}

/// Makes clap ignore the variables of the options of `serve` before the name of a command. These options are meant for
/// `vivamo` without a command. The command `serve` has the same options again, so an invalid variable of the server
/// does not make the other commands fail, nor `serve` with a flag that replaces the variable.
fn ignore_serve_variables(command: clap::Command) -> clap::Command {
    let lenient = command.clone().ignore_errors(true).try_get_matches_from(std::env::args_os());
    if lenient.map_or(true, |matches| matches.subcommand_name().is_none()) {
        return command;
    }
    command.mut_args(|arg| if is_serve_option(arg.get_id().as_str()) { arg.env(Resettable::Reset) } else { arg })
}

/// Rejects options of `serve` before the name of a command. clap accepts such options, but no code would read them.
fn reject_misplaced_options(matches: ArgMatches) -> Result<ArgMatches, clap::Error> {
    let is_misplaced = |id: &&str| is_serve_option(id) && matches.value_source(id) == Some(ValueSource::CommandLine);
    let misplaced = matches.ids().map(clap::Id::as_str).find(is_misplaced);
    let (Some(command), Some(id)) = (matches.subcommand_name(), misplaced) else { return Ok(matches) };
    let option = id.replace('_', "-");
    let remedy = if command == "serve" {
        "Write it after `serve`".to_owned()
    } else {
        format!("Remove it, because `vivamo {command}` does not use it")
    };
    let message = format!("--{option} is an option of `vivamo serve`. {remedy}");
    Err(clap::Error::raw(ErrorKind::ArgumentConflict, message))
}

/// Opens the database and builds the services, for commands that manage data. Applies pending migrations in sandbox.
async fn open_services(settings: &Settings) -> Result<Arc<Services>, FatalError> {
    Ok(open(settings, database_settings(settings, 0)).await?.services)
}

async fn open(settings: &Settings, database: DatabaseSettings) -> Result<Opened, FatalError> {
    let opened = open::open(database, service_settings(settings)).await?;
    if opened.had_no_tables {
        // Not `eprintln`, which panics if standard error is a closed pipe.
        let _ = writeln!(std::io::stderr(), "warning: {NO_TABLES}");
    }
    Ok(opened)
}

/// `vivamo migrate`: applies pending migrations and lists them.
async fn migrate(settings: &Settings) -> Result<(), FatalError> {
    // If the migrations have to wait for a lock, a line of the log says why.
    let _log = telemetry::start(settings.environment).map_err(FatalError::Usage)?;
    let database = DatabaseSettings { pending_migrations: PendingMigrations::Apply, ..database_settings(settings, 0) };
    let Opened { services, migrated, search_words, .. } = open(settings, database).await?;
    if search_words != SearchWords::Completed {
        // Customers that an older version wrote during the upgrade may have no search words yet.
        services.customers.add_missing_words(&Caller::Platform).await?;
    }
    print_lines("applied", &migrated)?;
    print::text("The database is up to date.\n")
}

/// `vivamo migrate --check`: lists the pending migrations or other pending work, and fails if there is any.
async fn list_pending(settings: &Settings) -> Result<(), FatalError> {
    let pending = open::pending_migrations(database_settings(settings, 0), service_settings(settings)).await?;
    print_lines("pending", &pending)?;
    match pending.len() {
        0 => print::text("The database is up to date.\n"),
        _ => Err(FatalError::Other("The database is not up to date. Run `vivamo migrate`.".to_owned())),
    }
}

fn print_lines(state: &str, names: &[String]) -> Result<(), FatalError> {
    print::text(&names.iter().map(|name| format!("{state}  {name}\n")).collect::<String>())
}

/// `vivamo rotate-key-secret`: lets the database use another secret.
async fn rotate_key_secret(settings: &Settings) -> Result<(), FatalError> {
    if settings.key_secret.is_none() {
        let message = "VIVAMO_KEY_SECRET (--key-secret) is not set. Set it to the new secret.";
        return Err(FatalError::Usage(message.to_owned()));
    }
    let is_old_known = settings.old_key_secret().is_some();
    let is_changed = open::rotate_key_secret(database_settings(settings, 0), service_settings(settings)).await?;
    print::text(match (is_changed, is_old_known) {
        (false, _) => "The database uses this VIVAMO_KEY_SECRET already.\n",
        (true, true) => {
            "The database uses the new VIVAMO_KEY_SECRET. Restart all servers with the new VIVAMO_KEY_SECRET and with \
             VIVAMO_KEY_SECRET_OLD. Before you unset VIVAMO_KEY_SECRET_OLD, wait 24 hours, and wait until all API keys have \
             been used again and all operators with webhooks have called rotateWebhookSecret after the restart.\n"
        }
        (true, false) => {
            "The database uses the new VIVAMO_KEY_SECRET. Restart all servers that still run. API keys that were made with \
             another secret then stop working: create new ones. Webhook receivers reject deliveries until their operators \
             call rotateWebhookSecret.\n"
        }
    })
}

/// The settings of the database. In sandbox, every command that uses these settings applies pending migrations, except
/// `migrate --check`.
fn database_settings(settings: &Settings, default_wait: u32) -> DatabaseSettings {
    DatabaseSettings {
        url: settings.database_url.clone(),
        pending_migrations: match settings.environment {
            Environment::Sandbox => PendingMigrations::Apply,
            Environment::Production => PendingMigrations::Reject,
        },
        startup_wait: settings.database_wait(default_wait),
        timeouts: DatabaseTimeouts::default(),
        observer: None,
    }
}

fn service_settings(settings: &Settings) -> ServiceSettings {
    let hasher = KeyedHasher::new(settings.key_secret());
    let hasher = match settings.old_key_secret() {
        Some(old) => hasher.with_old(old),
        None => hasher,
    };
    ServiceSettings::new(settings.environment, hasher)
}

fn operator_id(text: &str) -> Result<OperatorId, &'static str> {
    OperatorId::parse(text).ok_or("not the id of an operator (op_…). `vivamo operator list` shows the ids")
}

fn display_name(text: &str) -> Result<DisplayName, String> {
    DisplayName::parse(text).map_err(|reason| format!("the name {reason}"))
}
