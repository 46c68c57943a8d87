//! The command line. Each command has a file; this one parses the arguments, dispatches, and maps errors to exit codes.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong arguments or settings. Results go to standard output, errors to standard
//! error.

mod keys;
mod operators;
mod print;
mod serve;
mod variables;

use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use entity::deployment::Environment;
use entity::value::DisplayName;

use crate::app::{self, StartError, error_message};
use crate::config::{ServeSettings, Settings};
use crate::error::Error;
use crate::graphql;
use crate::keyed_hash::KeyedHash;
use crate::service::{Actor, ServiceSettings, Services};

/// The customer records of the Vivamo payments platform
#[derive(Debug, Parser)]
#[command(
    name = "vivamo",
    version = env!("VIVAMO_VERSION"),
    after_help = "Without a command, vivamo serves the API. The options of `vivamo serve` then need no command either."
)]
pub struct Cli {
    #[command(flatten)]
    settings: Settings,
    /// For `vivamo` without a command.
    #[command(flatten)]
    serve: ServeSettings,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API
    Serve(Box<ServeSettings>),
    /// Apply pending database migrations. Needed in production; in sandbox every command does this
    Migrate,
    /// Create or list operators
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

/// A message for the person who ran the command, and the exit code.
#[derive(Debug)]
pub struct CliError {
    pub message: String,
    pub exit_code: ExitCode,
}

impl CliError {
    /// The command could not be done.
    fn failure(message: String) -> Self {
        Self { message, exit_code: ExitCode::FAILURE }
    }

    /// The arguments or settings are wrong.
    fn usage(message: String) -> Self {
        Self { message, exit_code: ExitCode::from(2) }
    }
}

impl From<StartError> for CliError {
    fn from(error: StartError) -> Self {
        Self::failure(error.to_string())
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        Self::failure(error_message(error))
    }
}

impl Cli {
    /// Parses the arguments and the environment. On wrong usage, `--help` and `--version` prints a text and exits.
    pub fn parse_or_exit() -> Self {
        let command = Self::command().mut_args(|arg| {
            let is_of_serve = is_serve_option(arg.get_id().as_str());
            arg.hide(is_of_serve)
        });
        let mut command = variables::ignore_empty(command);
        let parse = |command: &mut clap::Command| {
            let matches = command.try_get_matches_from_mut(std::env::args_os())?;
            refuse_misplaced_options(&matches)?;
            Self::from_arg_matches(&matches)
        };
        parse(&mut command).unwrap_or_else(|mut error| {
            variables::name_source(&command, &mut error);
            error.format(&mut command).exit()
        })
    }

    pub async fn run(self) -> Result<(), CliError> {
        let Self { settings, serve, command } = self;
        let command = command.unwrap_or(Command::Serve(Box::new(serve)));
        if !matches!(command, Command::Schema | Command::Completions { .. }) {
            let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
            let variables = std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value)));
            variables::refuse_unknown(&variables::names(&Self::command()), variables).map_err(CliError::usage)?;
            settings.check().map_err(CliError::usage)?;
        }
        match command {
            Command::Serve(serve) => serve::run(&settings, &serve).await?,
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

/// Refuses options of `serve` before a command: clap accepts them there, and nothing would read them.
fn refuse_misplaced_options(matches: &ArgMatches) -> Result<(), clap::Error> {
    let is_misplaced = |id: &&str| is_serve_option(id) && matches.value_source(id) == Some(ValueSource::CommandLine);
    match (matches.subcommand_name(), matches.ids().map(clap::Id::as_str).find(is_misplaced)) {
        (Some(command), Some(id)) => {
            let option = id.replace('_', "-");
            let message =
                format!("--{option} is an option of `vivamo serve`. Write it after `serve`, not before `{command}`");
            Err(clap::Error::raw(ErrorKind::ArgumentConflict, message))
        }
        _ => Ok(()),
    }
}

/// Opens the database and builds the services, for commands that manage data. Applies pending migrations in sandbox,
/// and in production if `migrate` is set.
async fn open_services(settings: &Settings, migrate: bool) -> Result<Arc<Services>, CliError> {
    let migrate = migrate || settings.environment == Environment::Sandbox;
    let (_, services) = app::open(&settings.database_url, migrate, None, service_settings(settings)).await?;
    Ok(services)
}

/// `vivamo migrate`: applies pending migrations.
async fn migrate(settings: &Settings) -> Result<(), CliError> {
    let services = open_services(settings, true).await?;
    // Customers that an older version wrote during the upgrade have no search words yet.
    services.customers.add_missing_words(&Actor::Platform).await?;
    print::text("The database is up to date.\n");
    Ok(())
}

fn service_settings(settings: &Settings) -> ServiceSettings {
    ServiceSettings::new(settings.environment, KeyedHash::new(settings.key_secret()))
}

fn display_name(text: &str) -> Result<DisplayName, String> {
    DisplayName::parse(text).map_err(|reason| format!("the name {reason}"))
}
