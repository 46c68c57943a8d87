//! The command line. The commands `serve`, `operator` and `key` have a file each. This file parses the arguments, runs
//! the other commands itself, and decides which failures are wrong usage.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong arguments or settings. Results go to standard output, errors to standard
//! error.

mod keys;
mod operators;
mod print;
mod serve;
mod variables;

use std::sync::Arc;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use entity::deployment::Environment;
use entity::value::{DisplayName, OperatorId};

use crate::app::{self, Failure};
use crate::config::{ServeSettings, Settings};
use crate::graphql;
use crate::keyed_hash::KeyedHash;
use crate::service::{Actor, ServiceSettings, Services};

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
    /// Apply pending database migrations. Needed only in production: in sandbox every command that opens the database
    /// applies them
    Migrate,
    /// Create, list, change, suspend or resume operators
    #[command(subcommand)]
    Operator(operators::OperatorCommand),
    /// Create, list or revoke API keys
    #[command(subcommand)]
    Key(keys::KeyCommand),
    /// Print the GraphQL schema
    #[command(help_template = "{about-with-newline}\nUsage: vivamo schema\n")]
    Schema,
    /// Print a completion script for a shell, for example: source <(vivamo completions bash)
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
        let mut command = variables::ignore_empty(command);
        let matches = command.try_get_matches_from_mut(std::env::args_os()).and_then(refuse_misplaced_options);
        matches.and_then(|matches| Self::from_arg_matches(&matches)).unwrap_or_else(|mut error| {
            variables::name_source(&command, &mut error);
            error.format(&mut command).exit()
        })
    }

    pub async fn run(self) -> Result<(), Failure> {
        let Self { settings, serve, command } = self;
        let command = command.unwrap_or(Command::Serve(Box::new(serve)));
        if !matches!(command, Command::Schema | Command::Completions { .. }) {
            let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
            let variables = std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value)));
            variables::refuse_unknown(&variables::names(&Self::command()), variables).map_err(Failure::Usage)?;
            settings.check().map_err(Failure::Usage)?;
        }
        match command {
            Command::Serve(serve) => serve::run(settings, *serve).await?,
            Command::Migrate => migrate(&settings).await?,
            Command::Operator(command) => operators::run(command, &*open_services(&settings, false).await?).await?,
            Command::Key(command) => keys::run(command, &*open_services(&settings, false).await?).await?,
            Command::Schema => print::text(&graphql::sdl()),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "vivamo", &mut script);
                print::text(&String::from_utf8_lossy(&script));
            }
        }
        Ok(())
    }
}

fn is_serve_option(id: &str) -> bool {
    let serve = ServeSettings::augment_args(clap::Command::new("serve"));
    serve.get_arguments().any(|arg| arg.get_id() == id)
}

/// Refuses options of `serve` that stand before the name of a command. clap accepts options in this place, but no code
/// would read them.
fn refuse_misplaced_options(matches: ArgMatches) -> Result<ArgMatches, clap::Error> {
    let is_misplaced = |id: &&str| is_serve_option(id) && matches.value_source(id) == Some(ValueSource::CommandLine);
    let misplaced = matches.ids().map(clap::Id::as_str).find(is_misplaced);
    let (Some(command), Some(id)) = (matches.subcommand_name(), misplaced) else { return Ok(matches) };
    let option = id.replace('_', "-");
    let message = format!("--{option} is an option of `vivamo serve`. Write it after `serve`, not before `{command}`");
    Err(clap::Error::raw(ErrorKind::ArgumentConflict, message))
}

/// Opens the database and builds the services, for commands that manage data. Applies pending migrations in sandbox,
/// and in production if `migrate` is set.
async fn open_services(settings: &Settings, migrate: bool) -> Result<Arc<Services>, Failure> {
    let migrate = migrate || settings.environment == Environment::Sandbox;
    let (_, services) = app::open(&settings.database_url, migrate, None, service_settings(settings)).await?;
    Ok(services)
}

/// `vivamo migrate`: applies pending migrations.
async fn migrate(settings: &Settings) -> Result<(), Failure> {
    let services = open_services(settings, true).await?;
    // Customers that an older version wrote during the upgrade have no search words yet.
    services.customers.add_missing_words(&Actor::Platform).await?;
    print::text("The database is up to date.\n");
    Ok(())
}

fn service_settings(settings: &Settings) -> ServiceSettings {
    ServiceSettings::new(settings.environment, KeyedHash::new(settings.key_secret()))
}

fn operator_id(text: &str) -> Result<OperatorId, &'static str> {
    OperatorId::parse(text).ok_or("not the id of an operator (op_…). `vivamo operator list` shows the ids")
}

fn display_name(text: &str) -> Result<DisplayName, String> {
    DisplayName::parse(text).map_err(|reason| format!("the name {reason}"))
}
