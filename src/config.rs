//! The settings of the service. Each setting has a flag and an environment variable. If both are given, the flag wins.
//!
//! The command line parses the settings. Each group of settings, such as [`LimitSettings`], is a struct that is passed
//! to the code that it configures, so this module uses no other module of `src`.
//!
//! The doc comments of the fields are the help texts of `vivamo --help`; CONTRIBUTING.md says how to add a setting. The
//! two `check` functions check settings that depend on each other. They also check secrets, because a message of clap
//! would print the secret.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderValue;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use reqwest::Url;
use sea_orm::ActiveEnum;
use secrecy::{ExposeSecret, SecretString};

use entity::deployment::Environment;

/// Settings that all commands share.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of all commands")]
pub struct Settings {
    /// Database: sqlite://FILE or postgres://USER:PASSWORD@HOST:PORT/DATABASE
    #[arg(long, env = "DATABASE_URL", value_name = "URL", default_value = "sqlite://vivamo.db")]
    #[arg(hide_env_values = true, global = true)]
    pub database_url: String,

    /// Use `production` for real customers. `sandbox` is for tests and accepts, with a warning, emails and phones that
    /// production rejects
    #[arg(long, env = "VIVAMO_ENVIRONMENT", value_parser = environment(), default_value = "sandbox", global = true)]
    pub environment: Environment,

    /// Secret for hashing API keys and signing cursors (at least 32 bytes). Required in production; sandbox has a public
    /// default. Changing the secret invalidates all keys and cursors
    #[arg(long, env = "VIVAMO_KEY_SECRET", value_name = "SECRET", hide_env_values = true, global = true)]
    pub key_secret: Option<SecretString>,
}

/// Settings of `vivamo serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeSettings {
    /// IP address and port of the API. Port 0 takes any free port
    #[arg(long, env = "VIVAMO_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    #[arg(value_parser = address)]
    pub listen: SocketAddr,

    /// Key for platform-wide access: reads all customers, manages operators and keys (at least 32 characters in
    /// production). If unset, platform access is disabled
    #[arg(long, env = "VIVAMO_PLATFORM_KEY", value_name = "KEY", hide_env_values = true)]
    pub platform_key: Option<SecretString>,

    #[command(flatten)]
    pub http: HttpSettings,

    #[command(flatten)]
    pub limits: LimitSettings,

    #[command(flatten)]
    pub checks: CheckSettings,
}

/// The settings of the HTTP server.
#[derive(Args, Clone, Debug)]
pub struct HttpSettings {
    /// IP address and port of the Prometheus metrics, at /metrics. If unset, metrics are disabled. Clients must not
    /// reach this port
    #[arg(long, env = "VIVAMO_METRICS", value_name = "ADDRESS:PORT", value_parser = address)]
    pub metrics: Option<SocketAddr>,

    /// Serve GraphiQL, a page to explore the API in a browser, at /graphiql [default: true in sandbox, false in
    /// production]
    #[arg(long, env = "VIVAMO_GRAPHIQL", value_name = "BOOL", hide_possible_values = true)]
    pub graphiql: Option<bool>,

    /// Comma-separated addresses or networks (for example 10.0.0.0/8) of reverse proxies whose X-Forwarded-For header
    /// is trusted. If unset, the header is ignored
    #[arg(long, env = "VIVAMO_TRUSTED_PROXIES", value_name = "NETWORKS", value_delimiter = ',', value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,

    /// Comma-separated origins of web pages that may call the API from a browser, for example
    /// https://dashboard.example.com. If unset, no web page may call the API
    #[arg(long, env = "VIVAMO_CORS_ORIGINS", value_name = "ORIGINS", value_delimiter = ',', value_parser = origin)]
    pub cors_origins: Vec<HeaderValue>,

    /// The time that a client may take to send the head of its next request, or to read a part of a response. This
    /// field has no flag, because only tests change its value.
    #[arg(skip = Duration::from_secs(30))]
    pub idle_timeout: Duration,
}

/// The rate limits. 0 disables a limit.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Limits")]
pub struct LimitSettings {
    /// Cost that an API key may spend per second, with bursts of up to ten times as much (0 = unlimited). A query costs 1
    /// per root field, a mutation 10 per root field
    #[arg(long, env = "VIVAMO_COST_PER_SECOND", value_name = "COST", default_value_t = 200)]
    pub cost_per_second: u32,

    /// Number of requests with an invalid key that an IP address may send per minute (0 = unlimited)
    #[arg(long, env = "VIVAMO_AUTH_FAILURES_PER_MINUTE", value_name = "COUNT", default_value_t = 30)]
    pub auth_failures_per_minute: u32,

    /// Number of times per hour that an operator may learn that an email or phone belongs to a customer of another
    /// operator (0 = unlimited)
    #[arg(long, env = "VIVAMO_DISCLOSURES_PER_HOUR", value_name = "COUNT", default_value_t = 100)]
    pub disclosures_per_hour: u32,
}

impl LimitSettings {
    pub const OFF: Self = Self { cost_per_second: 0, auth_failures_per_minute: 0, disclosures_per_hour: 0 };
}

/// The restrictions of emails and phones.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Checks of emails and phones")]
pub struct CheckSettings {
    /// File of email domains to treat as disposable, in addition to the built-in list: one domain per line, # starts a
    /// comment
    #[arg(long, env = "VIVAMO_DISPOSABLE_DOMAINS", value_name = "FILE")]
    pub disposable_domains: Option<PathBuf>,

    /// File of email domains that are never disposable, in the same format. Overrides --disposable-domains and the
    /// built-in list
    #[arg(long, env = "VIVAMO_ALLOWED_DOMAINS", value_name = "FILE")]
    pub allowed_domains: Option<PathBuf>,

    /// Source that decides in production whether a phone is a mobile line: `metadata` uses the built-in numbering plans,
    /// `twilio` asks the carrier through Twilio Lookup
    #[arg(long, env = "VIVAMO_PHONE_LOOKUP", value_name = "SOURCE", default_value = "metadata")]
    #[arg(hide_possible_values = true)]
    pub phone_lookup: PhoneLookupName,

    /// Base URL of Twilio Lookup
    #[arg(long, env = "VIVAMO_TWILIO_URL", value_name = "URL", value_parser = url)]
    #[arg(default_value = "https://lookups.twilio.com")]
    pub twilio_url: Url,

    /// SID of a Twilio API key (SK…) or account (AC…). Required with `--phone-lookup twilio`
    #[arg(long, env = "VIVAMO_TWILIO_USER", value_name = "SID", hide_env_values = true)]
    pub twilio_user: Option<SecretString>,

    /// Secret of the Twilio API key, or auth token of the account. Required with `--phone-lookup twilio`
    #[arg(long, env = "VIVAMO_TWILIO_PASSWORD", value_name = "SECRET", hide_env_values = true)]
    pub twilio_password: Option<SecretString>,

    /// Policy for a phone whose line type the carrier does not know: `refuse` or `accept` [default: refuse]
    #[arg(long, env = "VIVAMO_UNKNOWN_LINE_TYPE", value_name = "POLICY", hide_possible_values = true)]
    pub unknown_line_type: Option<UnknownLinePolicy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PhoneLookupName {
    Metadata,
    Twilio,
}

/// Policy for a phone whose line type the carrier does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum UnknownLinePolicy {
    #[default]
    Refuse,
    Accept,
}

/// Accepts the names that the table `deployment` stores.
fn environment() -> impl TypedValueParser<Value = Environment> {
    PossibleValuesParser::new(["sandbox", "production"]).try_map(|name| Environment::try_from_value(&name))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected an IP address and a port, for example 127.0.0.1:8000".to_owned())
}

/// Parses a network. A single address becomes the network that contains only this address.
fn network(text: &str) -> Result<IpNet, &'static str> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| "expected an address or a network, for example 10.0.0.0/8")
}

fn url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
    url.ok_or("expected a URL, for example https://lookups.twilio.com")
}

/// Accepts only scheme, host and port, as browsers send them in the Origin header.
fn origin(text: &str) -> Result<HeaderValue, &'static str> {
    let is_origin = Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == text);
    let origin = HeaderValue::from_str(text).ok().filter(|_| is_origin);
    origin.ok_or("expected an origin without a path, for example https://dashboard.example.com")
}

/// The key secret of a sandbox without a configured secret. This secret is public, so production refuses it.
const SANDBOX_KEY_SECRET: &str = "vivamo-sandbox-key-secret-known-to-everyone";
const MIN_SECRET_BYTES: usize = 32;

// The names of settings in messages.
const DATABASE_URL: &str = "DATABASE_URL (--database-url)";
const KEY_SECRET: &str = "VIVAMO_KEY_SECRET (--key-secret)";
const PLATFORM_KEY: &str = "VIVAMO_PLATFORM_KEY (--platform-key)";
const TWILIO_USER: &str = "VIVAMO_TWILIO_USER (--twilio-user)";
const TWILIO_PASSWORD: &str = "VIVAMO_TWILIO_PASSWORD (--twilio-password)";
const UNKNOWN_LINE_TYPE: &str = "VIVAMO_UNKNOWN_LINE_TYPE (--unknown-line-type)";

/// Rejects a credential that is set but empty. An empty credential does not count as unset, because a deployment
/// template with an unfilled value must not switch protection off.
fn check_not_blank(name: &str, value: &Option<SecretString>) -> Result<(), String> {
    let is_blank = value.as_ref().is_some_and(|value| value.expose_secret().trim().is_empty());
    if is_blank { Err(format!("{name} is set but empty. Give it a value, or unset it.")) } else { Ok(()) }
}

/// Returns the error for a secret that is not safe.
fn insecure(name: &str, fault: &str) -> Result<(), String> {
    Err(format!("{name} {fault}. Generate one: openssl rand -hex 32"))
}

impl Settings {
    /// Checks the database URL and the key secret. The error says what to change.
    pub fn check(&self) -> Result<(), String> {
        let url = self.database_url.as_str();
        if !["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(format!("{DATABASE_URL} must start with sqlite:// or postgres://"));
        }
        let is_in_memory =
            |file: &str| ["", "//"].contains(&file) || file.contains(":memory:") || file.contains("mode=memory");
        if url.strip_prefix("sqlite:").is_some_and(is_in_memory) {
            return Err(format!("{DATABASE_URL} names no file, so nothing would be kept. Use sqlite://FILE"));
        }
        check_not_blank(KEY_SECRET, &self.key_secret)?;
        match self.key_secret.as_ref().map(ExposeSecret::expose_secret) {
            _ if self.environment == Environment::Sandbox => Ok(()),
            None => insecure(KEY_SECRET, "is required in production"),
            Some(secret) if secret.len() < MIN_SECRET_BYTES => {
                insecure(KEY_SECRET, &format!("must have at least {MIN_SECRET_BYTES} bytes"))
            }
            Some(SANDBOX_KEY_SECRET) => insecure(KEY_SECRET, "is the secret of sandbox, which is public"),
            Some(_) => Ok(()),
        }
    }

    /// Returns the configured secret. If none is configured, returns the public secret of sandbox.
    pub fn key_secret(&self) -> &str {
        self.key_secret.as_ref().map_or(SANDBOX_KEY_SECRET, |secret| secret.expose_secret())
    }
}

impl ServeSettings {
    /// Checks these settings together with the shared ones. The error says what to change.
    pub fn check(&self, shared: &Settings) -> Result<(), String> {
        let CheckSettings { phone_lookup, twilio_user, twilio_password, unknown_line_type, .. } = &self.checks;
        check_not_blank(PLATFORM_KEY, &self.platform_key)?;
        check_not_blank(TWILIO_USER, twilio_user)?;
        check_not_blank(TWILIO_PASSWORD, twilio_password)?;
        let platform_key = self.platform_key.as_ref().map(ExposeSecret::expose_secret);
        let is_short = platform_key.is_some_and(|key| key.len() < MIN_SECRET_BYTES);
        if is_short && shared.environment == Environment::Production {
            let fault = format!("must have at least {MIN_SECRET_BYTES} characters in production");
            return insecure(PLATFORM_KEY, &fault);
        }
        if platform_key == Some(shared.key_secret()) {
            let fault = format!("and {KEY_SECRET} are the same: a caller with the key would know the secret");
            return insecure(PLATFORM_KEY, &fault);
        }
        if self.http.metrics == Some(self.listen) && self.listen.port() != 0 {
            return Err(format!(
                "VIVAMO_METRICS (--metrics) and VIVAMO_LISTEN (--listen) are both {}. Use another port for the metrics.",
                self.listen
            ));
        }
        let user = twilio_user.as_ref().map(|_| TWILIO_USER);
        let password = twilio_password.as_ref().map(|_| TWILIO_PASSWORD);
        let unknown_line_type = unknown_line_type.map(|_| UNKNOWN_LINE_TYPE);
        match (phone_lookup, user.or(password).or(unknown_line_type)) {
            (PhoneLookupName::Twilio, _) if user.is_none() || password.is_none() => Err(format!(
                "VIVAMO_PHONE_LOOKUP=twilio (--phone-lookup) requires {TWILIO_USER} and {TWILIO_PASSWORD}."
            )),
            (PhoneLookupName::Metadata, Some(name)) => Err(format!(
                "{name} has no effect without Twilio. Set VIVAMO_PHONE_LOOKUP=twilio (--phone-lookup), or unset it."
            )),
            _ => Ok(()),
        }
    }
}
