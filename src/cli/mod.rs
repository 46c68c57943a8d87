//! The command line: what the binary can be told to do.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use entity::api_key::Access;
use entity::deployment::Environment;
use entity::value::{ApiKeyId, DisplayName, OperatorId};
use entity::{api_key, operator};
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{self, App, AppSettings, DatabaseSettings, error_message};
use crate::config::{PhoneLookupName, ServeSettings, Settings, UnknownLineType};
use crate::database::describe;
use crate::database::pages::{Direction, PageRequest, Positioned};
use crate::error::ErrorCode;
use crate::graphql;
use crate::http::HttpSettings;
use crate::keyed_hash::KeyedHash;
use crate::service::api_keys::{KeyRequest, NewApiKey};
use crate::service::disposable_domains::{self, DisposableDomains};
use crate::service::phone_lookup::{LineTypeLookup, Twilio, TwilioSettings, UnknownLinePolicy};
use crate::service::{Actor, LimitSettings, ServiceSettings, Services};
use crate::telemetry;

/// The customer records of the Vivamo payments platform: one person, one record
#[derive(Debug, Parser)]
#[command(name = "vivamo", version = env!("VIVAMO_VERSION"))]
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
    /// Serve the API (what happens without a command)
    Serve(Box<ServeSettings>),
    /// Bring the database up to date; in production `serve` does not do this by itself
    Migrate,
    /// Print the GraphQL schema; needs no database
    #[command(help_template = "{about-with-newline}\nUsage: vivamo schema\n")]
    Schema,
    /// Print what makes a shell complete the commands, such as `vivamo completions bash`
    #[command(help_template = "{about-with-newline}\nUsage: vivamo completions <SHELL>\n\nArguments:\n{positionals}\n")]
    Completions { shell: Shell },
    /// Create or list operators
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Create, list or revoke API keys
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Debug, Subcommand)]
enum OperatorCommand {
    /// Create an operator and its first key, which is shown this once
    Create {
        /// The operator's name, 1 to 100 characters
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// List all operators
    List {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Create one more key for an operator, which is shown this once
    Create {
        /// The operator's id, such as op_01h455vb4pex5vsknk084sn02q
        operator: String,
        /// A name that tells the key from the operator's others
        #[arg(long)]
        name: String,
        /// The key reads, and changes nothing
        #[arg(long)]
        read_only: bool,
        /// From when on the key opens nothing, such as 2027-01-31T00:00:00Z
        #[arg(long, value_name = "TIME")]
        expires_at: Option<DateTime<Utc>>,
        #[command(flatten)]
        output: Output,
    },
    /// List the keys of an operator, or of all
    List {
        /// The operator's id
        operator: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// End a key, at once and for good
    Revoke {
        /// The key's id, such as key_01h455vb4pex5vsknk084sn02q
        id: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Args, Clone, Copy, Debug)]
struct Output {
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

impl Cli {
    /// What was asked for; where that is wrong usage, says so and ends the process.
    pub fn read() -> Self {
        let mut command = Self::command();
        let matches = command.get_matches_mut();
        match check_places(&matches).and_then(|()| Self::from_arg_matches(&matches)) {
            Ok(cli) => cli,
            Err(error) => error.format(&mut command).exit(),
        }
    }

    /// Does what was asked for; an error is words for the person who asked.
    pub async fn run(self) -> Result<(), String> {
        let Self { settings, serve, command } = self;
        match command.unwrap_or(Command::Serve(Box::new(serve))) {
            Command::Serve(serve) => run_server(&settings, &serve).await,
            Command::Migrate => migrate(&settings).await,
            Command::Schema => {
                print(&graphql::sdl());
                Ok(())
            }
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "vivamo", &mut script);
                print(&String::from_utf8_lossy(&script));
                Ok(())
            }
            Command::Operator(command) => command.run(&*open_services(&settings, false).await?).await,
            Command::Key(command) => command.run(&*open_services(&settings, false).await?).await,
        }
    }
}

/// An option of `serve` before a command would be read and then forgotten.
fn check_places(matches: &ArgMatches) -> Result<(), clap::Error> {
    let Some(command) = matches.subcommand_name() else { return Ok(()) };
    let of_serve = ServeSettings::augment_args(clap::Command::new("serve"));
    let is_given = |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    match of_serve.get_arguments().map(clap::Arg::get_id).find(is_given) {
        Some(id) => Err(clap::Error::raw(
            ErrorKind::ArgumentConflict,
            format!(
                "--{} is an option of `vivamo serve`, and stands before `{command}`: write it after `serve`",
                id.as_str().replace('_', "-")
            ),
        )),
        None => Ok(()),
    }
}

async fn run_server(settings: &Settings, serve: &ServeSettings) -> Result<(), String> {
    serve.check(settings)?;
    telemetry::start(settings.environment());
    let is_sandbox = settings.environment() == Environment::Sandbox;
    let app = App::start(AppSettings {
        database: database_settings(settings, is_sandbox)?,
        services: serve_settings(settings, serve)?,
        http: HttpSettings {
            idle: HttpSettings::IDLE,
            trusted_proxies: serve.trusted_proxies.clone(),
            origins: serve.cors_origins.clone(),
        },
        listen: serve.listen,
        metrics: serve.metrics,
        graphiql: serve.graphiql.unwrap_or(is_sandbox),
        jobs: true,
    });
    let app = app.await.map_err(|error| error.to_string())?;
    let address = app.address;
    if is_sandbox && settings.is_sqlite() {
        welcome(&app.services, &format!("http://{address}")).await?;
    }
    let stop = stop().map_err(|error| format!("Cannot wait for signals: {error}"))?;
    if let Some(address) = app.metrics_address {
        tracing::info!("metrics on http://{address}/metrics");
    }
    tracing::info!(environment = ?settings.environment(), "listening on http://{address}");
    app.run_until(stop).await.map_err(|error| describe(&error))?;
    tracing::info!("stopped");
    Ok(())
}

/// On a first start there is nobody yet who could call: makes someone, and shows how.
async fn welcome(services: &Services, url: &str) -> Result<(), String> {
    let demo = DisplayName::parse("Demo").map_err(|reason| reason.to_string())?;
    let first =
        services.operators.create_first(&Actor::Platform, &services.api_keys, demo).await.map_err(error_message)?;
    if let Some((_, key)) = first {
        let key = key.secret.expose_secret();
        let query = r#"mutation { createCustomer(input: {externalCustomerId: \"user-1\", data: {email: \"ada@example.com\"}}) { outcome customer { id email missingFields } } }"#;
        print(&format!(
            "This is a new database. The operator Demo was made for you to try it with; its key is shown this once:\n\n    \
             {key}\n\nCreate a first customer:\n\n    \
             curl {url}/graphql -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \
             -d '{{\"query\":\"{query}\"}}'\n\n"
        ));
        if cfg!(graphiql) {
            print(&format!("Explore the schema at {url}/graphiql\n\n"));
        }
    }
    Ok(())
}

/// Done when the process is asked to stop, from now on.
fn stop() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

async fn migrate(settings: &Settings) -> Result<(), String> {
    let services = open_services(settings, true).await?;
    services.customers.add_missing_words(&Actor::Platform).await.map_err(error_message)?;
    print("The database is up to date.\n");
    Ok(())
}

/// The services on the database of these settings. In production the database is migrated only where `migrates` says so.
async fn open_services(settings: &Settings, migrates: bool) -> Result<Arc<Services>, String> {
    let database = database_settings(settings, migrates || settings.environment() == Environment::Sandbox)?;
    let opened = app::open(database, service_settings(settings)).await;
    Ok(opened.map_err(|error| error.to_string())?.1)
}

fn database_settings(settings: &Settings, migrate: bool) -> Result<DatabaseSettings, String> {
    settings.check()?;
    Ok(DatabaseSettings { url: settings.database_url.clone(), migrate, observer: None })
}

fn service_settings(settings: &Settings) -> ServiceSettings {
    ServiceSettings::new(settings.environment(), KeyedHash::new(settings.key_secret()))
}

/// What serving takes.
fn serve_settings(settings: &Settings, serve: &ServeSettings) -> Result<ServiceSettings, String> {
    let list = |file: &Option<PathBuf>| -> Result<Vec<String>, String> {
        let Some(file) = file else { return Ok(Vec::new()) };
        let read = std::fs::read_to_string(file).map_err(|error| error.to_string());
        let read = read.and_then(|text| disposable_domains::parse_list(&text));
        read.map_err(|error| format!("Cannot read the domains of {}: {error}", file.display()))
    };
    let carrier: Option<(Arc<dyn LineTypeLookup>, UnknownLinePolicy)> = match serve.phone_lookup {
        PhoneLookupName::Metadata => None,
        PhoneLookupName::Twilio => {
            let (Some(user), Some(password)) = (&serve.twilio_user, &serve.twilio_password) else {
                return Err("VIVAMO_PHONE_LOOKUP=twilio needs VIVAMO_TWILIO_USER and VIVAMO_TWILIO_PASSWORD.".into());
            };
            let twilio =
                TwilioSettings { url: serve.twilio_url.clone(), user: user.clone(), password: password.clone() };
            let twilio = Twilio::new(twilio).map_err(|error| format!("Cannot prepare the phone look-up: {error}"))?;
            let unknown_lines = match serve.unknown_line_type {
                None | Some(UnknownLineType::Refuse) => UnknownLinePolicy::Refuse,
                Some(UnknownLineType::Accept) => UnknownLinePolicy::Accept,
            };
            Some((Arc::new(twilio), unknown_lines))
        }
    };
    Ok(ServiceSettings {
        platform_key: serve.platform_key.clone(),
        disposable_domains: DisposableDomains::new(list(&serve.disposable_domains)?, list(&serve.allowed_domains)?),
        carrier,
        limits: LimitSettings {
            cost_per_second: serve.cost_per_second,
            auth_failures_per_minute: serve.auth_failures_per_minute,
            disclosures_per_hour: serve.disclosures_per_hour,
        },
        ..service_settings(settings)
    })
}

impl OperatorCommand {
    async fn run(self, services: &Services) -> Result<(), String> {
        match self {
            Self::Create { name, output } => {
                let name =
                    DisplayName::parse(&name).map_err(|reason| format!("The name is not valid: it {reason}."))?;
                let created = services.operators.create(&Actor::Platform, &services.api_keys, name).await;
                let (operator, key) = created.map_err(error_message)?;
                let id = operator.id.to_string();
                print_key(output, &id, operator.name.as_str(), &key);
            }
            Self::List { output } => {
                let mut request = PageRequest { direction: Direction::Forward, size: 100, after: None, before: None };
                let mut operators = Vec::new();
                loop {
                    let page =
                        services.operators.page(&Actor::Platform, request.clone()).await.map_err(error_message)?;
                    request.after = page.rows.last().map(Positioned::position);
                    operators.extend(page.rows);
                    if !page.has_next {
                        break;
                    }
                }
                let row = |operator: &operator::Model| {
                    vec![
                        ("id", Some(operator.id.to_string())),
                        ("name", Some(operator.name.as_str().to_owned())),
                        ("createdAt", Some(operator.created_at.to_rfc3339())),
                    ]
                };
                print_rows(output, operators.iter().map(row).collect());
            }
        }
        Ok(())
    }
}

impl KeyCommand {
    async fn run(self, services: &Services) -> Result<(), String> {
        let keys = &services.api_keys;
        match self {
            Self::Create { operator, name, read_only, expires_at, output } => {
                let operator = operator_id(&operator)?;
                let name =
                    DisplayName::parse(&name).map_err(|reason| format!("The name is not valid: it {reason}."))?;
                let access = if read_only { Access::ReadOnly } else { Access::ReadWrite };
                let request = KeyRequest { name, access, expires_at };
                let key = keys.create(&Actor::Platform, operator, request).await.map_err(error_message)?;
                print_key(output, &key.row.id.to_string(), key.row.name.as_str(), &key);
            }
            Self::List { operator, output } => {
                let keys = match operator.as_deref().map(operator_id).transpose()? {
                    Some(operator) => {
                        let mut found = keys.by_operator(&Actor::Platform, &[operator]).await.map_err(error_message)?;
                        // Each operator is made with its first key.
                        let keys = found.remove(&operator).filter(|keys| !keys.is_empty());
                        keys.ok_or_else(|| error_message(ErrorCode::OperatorNotFound.into()))?
                    }
                    None => keys.list(&Actor::Platform).await.map_err(error_message)?,
                };
                print_rows(output, keys.iter().map(key_row).collect());
            }
            Self::Revoke { id, output } => {
                let id = ApiKeyId::parse(&id).ok_or_else(|| format!("{id:?} is not the id of a key, such as key_…"))?;
                let key = keys.revoke(&Actor::Platform, id).await.map_err(error_message)?;
                print_rows(output, vec![key_row(&key)]);
            }
        }
        Ok(())
    }
}

fn operator_id(text: &str) -> Result<OperatorId, String> {
    OperatorId::parse(text).ok_or_else(|| {
        format!("{text:?} is not the id of an operator, such as op_…: `vivamo operator list` shows them.")
    })
}

type Row = Vec<(&'static str, Option<String>)>;

fn key_row(key: &api_key::Model) -> Row {
    let access = match key.access {
        Access::ReadOnly => "READ_ONLY",
        Access::ReadWrite => "READ_WRITE",
    };
    vec![
        ("id", Some(key.id.to_string())),
        ("operatorId", Some(key.operator_id.to_string())),
        ("name", Some(key.name.as_str().to_owned())),
        ("prefix", Some(key.prefix.clone())),
        ("access", Some(access.to_owned())),
        ("createdAt", Some(key.created_at.to_rfc3339())),
        ("expiresAt", key.expires_at.map(|at| at.to_rfc3339())),
        ("lastUsedAt", key.last_used_at.map(|at| at.to_rfc3339())),
        ("revokedAt", key.revoked_at.map(|at| at.to_rfc3339())),
    ]
}

/// `createdAt` is `CREATED AT` above a column.
fn title(name: &str) -> String {
    let spaced = name.chars().flat_map(|char| char.is_uppercase().then_some(' ').into_iter().chain([char]));
    spaced.collect::<String>().to_uppercase()
}

fn print_key(output: Output, id: &str, name: &str, key: &NewApiKey) {
    let secret = key.secret.expose_secret();
    if output.json {
        print(&format!("{}\n", json!({ "id": id, "name": name, "key": secret })));
    } else {
        print(&format!("{id}  {name}\n\n    {secret}\n\nThe key is shown this once: keep it in a safe place.\n"));
    }
}

fn print_rows(output: Output, rows: Vec<Row>) {
    if output.json {
        let rows: Vec<serde_json::Map<_, _>> = rows
            .into_iter()
            .map(|row| row.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect())
            .collect();
        print(&format!("{}\n", json!(rows)));
        return;
    }
    let titles: Vec<String> = rows.first().into_iter().flatten().map(|(name, _)| title(name)).collect();
    let cells = rows.into_iter().map(|row| row.into_iter().map(|(_, value)| value.unwrap_or_default()).collect());
    let lines: Vec<Vec<String>> = std::iter::once(titles).chain(cells).collect();
    for line in &lines {
        let padded = line.iter().enumerate().map(|(column, cell)| {
            let width = lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
            format!("{cell:<width$}", width = width.unwrap_or_default())
        });
        print(&format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end()));
    }
}

/// To standard output; a reader that has gone away is no fault of ours.
fn print(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}
