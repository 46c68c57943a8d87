//! The settings of the service. Each setting of `vivamo serve` has a flag and an environment variable. If both are
//! given, the flag wins.
//!
//! The module `src/cli` parses the settings from the arguments and the environment variables. Each group of settings,
//! such as [`RateLimitSettings`], is a struct, which is passed to the code that it configures. This module uses no
//! other module of `src`.
//!
//! The doc comments of the fields are the help texts that `--help` prints; CONTRIBUTING.md says how to add a setting.
//! [`Settings::check`] and [`ServeSettings::check`] check settings that depend on each other. They also check secrets,
//! because a message of clap would print the secret.

mod credential;
mod parse;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderValue;
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use entity::deployment::Environment;

use credential::Credential;
use parse::{address, environment, network, origin, secret, secure_base_url};

/// Settings that all commands share.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of all commands")]
pub struct Settings {
    /// Database: sqlite://FILE or postgres://USER:PASSWORD@HOST:PORT/DATABASE
    #[arg(long, env = "DATABASE_URL", value_name = "URL", default_value = DEFAULT_URL)]
    #[arg(hide_env_values = true, global = true)]
    pub database_url: String,

    /// File that contains the URL of the database
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE", global = true)]
    pub database_url_file: Option<PathBuf>,

    /// Use `production` for real customers. `sandbox` is for tests and accepts, with a warning, emails and phones that
    /// production rejects
    #[arg(long, env = "VIVAMO_ENVIRONMENT", value_parser = environment(), default_value = "sandbox", global = true)]
    pub environment: Environment,

    /// Secret for hashing API keys, idempotency keys and the phones of carrier lookups, for signing cursors, and for
    /// deriving webhook secrets. Required in production, at least 32 bytes; sandbox has a public default. `vivamo
    /// rotate-key-secret` replaces it
    #[arg(long, env = "VIVAMO_KEY_SECRET", value_name = "SECRET", value_parser = secret)]
    #[arg(hide_env_values = true, global = true)]
    pub key_secret: Option<SecretString>,

    /// File that contains the value of VIVAMO_KEY_SECRET
    #[arg(long, env = "VIVAMO_KEY_SECRET_FILE", value_name = "FILE", global = true)]
    pub key_secret_file: Option<PathBuf>,

    /// Older secret that is still accepted while the secret is being changed: for API keys, idempotency keys, cursors
    /// and webhook secrets
    #[arg(long, env = "VIVAMO_KEY_SECRET_OLD", value_name = "SECRET", value_parser = secret)]
    #[arg(hide_env_values = true, global = true)]
    pub key_secret_old: Option<SecretString>,

    /// File that contains the value of VIVAMO_KEY_SECRET_OLD
    #[arg(long, env = "VIVAMO_KEY_SECRET_OLD_FILE", value_name = "FILE")]
    #[arg(global = true)]
    pub key_secret_old_file: Option<PathBuf>,

    /// Seconds to wait for a PostgreSQL that cannot be reached [default: 30 in `vivamo serve`, 0 in other commands]
    #[arg(long, env = "VIVAMO_WAIT_FOR_DATABASE", value_name = "SECONDS", global = true)]
    pub wait_for_database: Option<u32>,
}

/// Settings of `vivamo serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeSettings {
    /// Address and port of the API. Port 0 takes any free port
    #[arg(long, env = "VIVAMO_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    #[arg(value_parser = address)]
    pub listen: SocketAddr,

    /// Key for platform-wide access: reads and changes all customers, manages operators and keys. The platform key must
    /// have at least 32 characters in production. If unset, platform access over the API is disabled
    #[arg(long, env = "VIVAMO_PLATFORM_KEY", value_name = "KEY", hide_env_values = true, value_parser = secret)]
    pub platform_key: Option<SecretString>,

    /// File that contains the platform key
    #[arg(long, env = "VIVAMO_PLATFORM_KEY_FILE", value_name = "FILE")]
    pub platform_key_file: Option<PathBuf>,

    #[command(flatten)]
    pub http: HttpSettings,

    /// Number of days for which the change feed keeps a change
    #[arg(long, env = "VIVAMO_CHANGES_DAYS", value_name = "DAYS", default_value_t = 90)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub changes_days: u32,

    #[command(flatten)]
    pub limits: RateLimitSettings,

    #[command(flatten)]
    pub restrictions: RestrictionSettings,

    #[command(flatten)]
    pub webhooks: WebhookSettings,
}

/// The settings of the HTTP server.
#[derive(Args, Clone, Debug)]
pub struct HttpSettings {
    /// Address and port of the Prometheus metrics, at /metrics, and of the probes /healthz and /readyz. If unset,
    /// metrics are disabled. Clients must not reach this port
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
    /// https://dashboard.example.com. If unset, no web page of another origin may call the API
    #[arg(long, env = "VIVAMO_CORS_ORIGINS", value_name = "ORIGINS", value_delimiter = ',', value_parser = origin)]
    pub cors_origins: Vec<HeaderValue>,

    /// The time limits. Only tests change them, so they have no flag.
    #[arg(skip)]
    pub timeouts: HttpTimeouts,
}

/// The time limits of an HTTP server.
#[derive(Clone, Copy, Debug)]
pub struct HttpTimeouts {
    /// The time that a client may take to send the head of the next request. Then the connection is closed.
    pub idle: Duration,
    /// The time that a client may take to read a response. Then the connection is closed.
    pub response: Duration,
    /// The time that the service waits for the body of a request that it rejects.
    pub rejected_body: Duration,
    /// The longest time that a request waits because its key has too many requests in flight.
    pub slot: Duration,
    /// The maximum time for authentication, for the arrival of the body, and for execution, each counted separately. On
    /// PostgreSQL, each statement has its own, shorter timeout.
    pub request: Duration,
    /// The maximum time for the database work of a request, except a mutation of the platform. After this time, the
    /// database will most likely never respond.
    pub work: Duration,
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(30),
            response: Duration::from_secs(60),
            rejected_body: Duration::from_secs(1),
            slot: Duration::from_secs(4),
            request: Duration::from_secs(10),
            work: Duration::from_secs(20),
        }
    }
}

/// The rate limits. 0 disables a limit.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Limits")]
pub struct RateLimitSettings {
    /// Cost that an API key may spend per second, with bursts of up to ten times as much (0 = unlimited). A query costs
    /// at least 1 and a mutation at least 10, depending on its work
    #[arg(long, env = "VIVAMO_COST_PER_SECOND", value_name = "COST", default_value_t = 200)]
    pub cost_per_second: u32,

    /// Failed authentications per minute of an IPv4 address or an IPv6 /64 network. Further ones get HTTP 429 and not
    /// 401; valid keys still work (0 = unlimited)
    #[arg(long, env = "VIVAMO_AUTH_FAILURES_PER_MINUTE", value_name = "COUNT", default_value_t = 30)]
    pub auth_failures_per_minute: u32,

    /// Disclosures per hour on each server, for an operator without its own budget (0 = unlimited). A disclosure is an
    /// email or phone in a mutation that matched a customer that is not connected to the operator
    #[arg(long, env = "VIVAMO_DISCLOSURES_PER_HOUR", value_name = "COUNT", default_value_t = 100)]
    pub disclosures_per_hour: u32,

    /// The longest time that a request waits for disclosures that other requests have reserved. Most reservations end
    /// after some milliseconds. This field has no flag, because only tests change its value.
    #[arg(skip = Self::RESERVATION_WAIT)]
    pub reservation_wait: Duration,
}

impl RateLimitSettings {
    const RESERVATION_WAIT: Duration = Duration::from_secs(1);
    pub const OFF: Self = Self {
        cost_per_second: 0,
        auth_failures_per_minute: 0,
        disclosures_per_hour: 0,
        reservation_wait: Self::RESERVATION_WAIT,
    };
}

/// The restrictions of emails and phones.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Checks of emails and phones")]
pub struct RestrictionSettings {
    /// File of email domains to treat as disposable, in addition to the built-in list: one domain per line, # starts a
    /// comment
    #[arg(long, env = "VIVAMO_DISPOSABLE_DOMAINS", value_name = "FILE")]
    pub disposable_domains: Option<PathBuf>,

    /// File of email domains that are never disposable, in the same format. Does not cover subdomains that a list of
    /// disposable domains names
    #[arg(long, env = "VIVAMO_ALLOWED_DOMAINS", value_name = "FILE")]
    pub allowed_domains: Option<PathBuf>,

    /// Source that decides in production whether a phone is a mobile line: `metadata` uses the built-in numbering
    /// plans, `twilio` asks the carrier through Twilio Lookup
    #[arg(long, env = "VIVAMO_PHONE_LOOKUP", value_name = "SOURCE", default_value = "metadata")]
    #[arg(hide_possible_values = true)]
    pub phone_lookup: PhoneLookupName,

    // A URL that contains a password is rejected. The parser accepts it, because clap would show it in the message.
    /// Base URL of Twilio Lookup
    #[arg(long, env = "VIVAMO_TWILIO_URL", value_name = "URL", hide_env_values = true)]
    #[arg(default_value = "https://lookups.twilio.com")]
    pub twilio_url: String,

    /// SID of a Twilio API key (SK…) or account (AC…). Required with `--phone-lookup twilio`, and allowed only with it
    #[arg(long, env = "VIVAMO_TWILIO_USER", value_name = "SID", hide_env_values = true, value_parser = secret)]
    pub twilio_user: Option<SecretString>,

    /// Secret of the Twilio API key, or auth token of the account. Required with `--phone-lookup twilio`, and allowed
    /// only with it
    #[arg(long, env = "VIVAMO_TWILIO_PASSWORD", value_name = "SECRET", hide_env_values = true, value_parser = secret)]
    pub twilio_password: Option<SecretString>,

    /// File that contains the secret or token of Twilio
    #[arg(long, env = "VIVAMO_TWILIO_PASSWORD_FILE", value_name = "FILE")]
    pub twilio_password_file: Option<PathBuf>,

    /// Policy for a phone whose line type the carrier does not know: `refuse` or `accept` [default: refuse]. Allowed
    /// only with `--phone-lookup twilio`
    #[arg(long, env = "VIVAMO_UNKNOWN_LINE_TYPE", value_name = "POLICY", hide_possible_values = true)]
    pub unknown_line_type: Option<UnknownLinePolicy>,
}

/// The settings of webhooks.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Webhooks")]
pub struct WebhookSettings {
    /// Comma-separated non-public addresses or networks that webhooks may reach, for example 127.0.0.0/8 for a receiver
    /// on this machine. Only in sandbox
    #[arg(long, env = "VIVAMO_WEBHOOK_NETWORKS", value_name = "NETWORKS", value_delimiter = ',', value_parser = network)]
    pub webhook_networks: Vec<IpNet>,
}

/// The settings of `vivamo webhook listen`.
#[derive(Args, Clone, Debug)]
pub struct WebhookListenSettings {
    /// Port on this machine that receives deliveries. Port 0 takes a free port
    #[arg(long, default_value_t = 9000)]
    pub port: u16,

    /// Secret of the endpoint (whsec_…), to verify deliveries. `createWebhook` returns it
    #[arg(long, env = "VIVAMO_WEBHOOK_SECRET", value_name = "SECRET", hide_env_values = true, value_parser = secret)]
    pub secret: Option<SecretString>,

    /// File that contains the secret of the endpoint
    #[arg(long, env = "VIVAMO_WEBHOOK_SECRET_FILE", value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
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

/// The key secret of a sandbox in which no secret is configured. It is public, so production rejects it.
const SANDBOX_KEY_SECRET: &str = "vivamo-sandbox-key-secret-known-to-everyone";
const MIN_SECRET_BYTES: usize = 32;

const DEFAULT_URL: &str = "sqlite://vivamo.db";

/// The URL counts as a credential, because it can contain a password.
pub const DATABASE_URL: Credential = Credential { variable: "DATABASE_URL", flag: "--database-url" };
const KEY_SECRET: Credential = Credential { variable: "VIVAMO_KEY_SECRET", flag: "--key-secret" };
const KEY_SECRET_OLD: Credential = Credential { variable: "VIVAMO_KEY_SECRET_OLD", flag: "--key-secret-old" };
const PLATFORM_KEY: Credential = Credential { variable: "VIVAMO_PLATFORM_KEY", flag: "--platform-key" };
const TWILIO_USER: Credential = Credential { variable: "VIVAMO_TWILIO_USER", flag: "--twilio-user" };
const TWILIO_PASSWORD: Credential = Credential { variable: "VIVAMO_TWILIO_PASSWORD", flag: "--twilio-password" };
const WEBHOOK_SECRET: Credential = Credential { variable: "VIVAMO_WEBHOOK_SECRET", flag: "--secret" };

impl Settings {
    /// Reads the settings whose values are in files: the URL of the database, and the secrets.
    pub fn read_files(mut self) -> Result<Self, String> {
        // A URL from a secret store often ends in a line break.
        self.database_url = self.database_url.trim().to_owned();
        // The default counts as unset, so that the URL may be in a file.
        let mut url = (self.database_url != DEFAULT_URL).then(|| self.database_url.clone().into());
        DATABASE_URL.read(&mut url, self.database_url_file.as_deref())?;
        self.database_url = url.map_or(self.database_url, |url: SecretString| url.expose_secret().to_owned());
        KEY_SECRET.read(&mut self.key_secret, self.key_secret_file.as_deref())?;
        KEY_SECRET_OLD.read(&mut self.key_secret_old, self.key_secret_old_file.as_deref())?;
        Ok(self)
    }

    /// Checks the key secrets. The error says what to change.
    pub fn check(&self) -> Result<(), String> {
        KEY_SECRET.check(self.key_secret.as_ref())?;
        KEY_SECRET_OLD.check(self.key_secret_old.as_ref())?;
        if self.old_key_secret() == Some(self.key_secret()) {
            return Err(format!("{KEY_SECRET_OLD} and {KEY_SECRET} are the same. Unset {KEY_SECRET_OLD}."));
        }
        match self.key_secret.as_ref().map(ExposeSecret::expose_secret) {
            _ if self.environment == Environment::Sandbox => Ok(()),
            None => KEY_SECRET.insecure("is required in production"),
            Some(secret) if secret.len() < MIN_SECRET_BYTES => {
                KEY_SECRET.insecure(&format!("must have at least {MIN_SECRET_BYTES} bytes"))
            }
            Some(SANDBOX_KEY_SECRET) => KEY_SECRET.insecure("is the public default secret of sandbox"),
            Some(_) => Ok(()),
        }
    }

    /// Returns the configured secret. If none is configured, returns the public secret of sandbox.
    pub fn key_secret(&self) -> &str {
        self.key_secret.as_ref().map_or(SANDBOX_KEY_SECRET, |secret| secret.expose_secret())
    }

    /// The older secret that is still accepted.
    pub fn old_key_secret(&self) -> Option<&str> {
        self.key_secret_old.as_ref().map(ExposeSecret::expose_secret)
    }

    /// Returns the longest time to wait for the database. If the setting is unset, the time is `default` seconds.
    pub fn database_wait(&self, default: u32) -> Duration {
        Duration::from_secs(self.wait_for_database.unwrap_or(default).into())
    }
}

impl WebhookListenSettings {
    /// Reads and checks the secret.
    pub fn read_secret(mut self) -> Result<SecretString, String> {
        WEBHOOK_SECRET.read(&mut self.secret, self.secret_file.as_deref())?;
        WEBHOOK_SECRET.check(self.secret.as_ref())?;
        self.secret.ok_or_else(|| format!("{WEBHOOK_SECRET} is required. `createWebhook` returns the secret."))
    }
}

impl ServeSettings {
    /// Reads the credentials that are in files.
    pub fn read_files(mut self) -> Result<Self, String> {
        PLATFORM_KEY.read(&mut self.platform_key, self.platform_key_file.as_deref())?;
        let RestrictionSettings { twilio_password, twilio_password_file, .. } = &mut self.restrictions;
        TWILIO_PASSWORD.read(twilio_password, twilio_password_file.as_deref())?;
        Ok(self)
    }

    /// Checks these settings together with the shared settings. The error says what to change.
    pub fn check(&self, shared: &Settings) -> Result<(), String> {
        PLATFORM_KEY.check(self.platform_key.as_ref())?;
        TWILIO_USER.check(self.restrictions.twilio_user.as_ref())?;
        TWILIO_PASSWORD.check(self.restrictions.twilio_password.as_ref())?;
        self.check_platform_key(shared)?;
        self.check_metrics()?;
        self.webhooks.check(shared.environment)?;
        self.restrictions.check()
    }

    fn check_platform_key(&self, shared: &Settings) -> Result<(), String> {
        let Some(key) = self.platform_key.as_ref().map(ExposeSecret::expose_secret) else { return Ok(()) };
        if key.len() < MIN_SECRET_BYTES && shared.environment == Environment::Production {
            let problem = format!("must have at least {MIN_SECRET_BYTES} characters in production");
            return PLATFORM_KEY.insecure(&problem);
        }
        let is_allowed = key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') && key == key.trim();
        if !is_allowed {
            let problem =
                "must consist of visible ASCII characters, with spaces only between them: it is sent in a header";
            return PLATFORM_KEY.insecure(problem);
        }
        let secrets = [(KEY_SECRET, Some(shared.key_secret())), (KEY_SECRET_OLD, shared.old_key_secret())];
        if let Some((setting, _)) = secrets.into_iter().find(|(_, secret)| *secret == Some(key)) {
            let problem = format!("and {setting} are the same: a caller with the key would know the secret");
            return PLATFORM_KEY.insecure(&problem);
        }
        Ok(())
    }

    fn check_metrics(&self) -> Result<(), String> {
        if self.http.metrics == Some(self.listen) && self.listen.port() != 0 {
            return Err(format!(
                "VIVAMO_METRICS (--metrics) and VIVAMO_LISTEN (--listen) are both {}. Use another port for the metrics.",
                self.listen
            ));
        }
        Ok(())
    }
}

impl WebhookSettings {
    fn check(&self, environment: Environment) -> Result<(), String> {
        if environment == Environment::Production && !self.webhook_networks.is_empty() {
            return Err("VIVAMO_WEBHOOK_NETWORKS (--webhook-networks) is only for sandbox. Unset it: in production, \
                        webhooks reach public addresses only."
                .to_owned());
        }
        Ok(())
    }
}

impl RestrictionSettings {
    /// Parses the base URL of Twilio Lookup.
    pub fn parse_twilio_url(&self) -> Result<Url, String> {
        secure_base_url(&self.twilio_url).map_err(|expected| format!("VIVAMO_TWILIO_URL (--twilio-url): {expected}"))
    }

    /// Checks that the settings of Twilio are complete, or that there are none.
    fn check(&self) -> Result<(), String> {
        let settings = [
            (TWILIO_USER.to_string(), self.twilio_user.is_some()),
            (TWILIO_PASSWORD.to_string(), self.twilio_password.is_some()),
            ("VIVAMO_UNKNOWN_LINE_TYPE (--unknown-line-type)".to_owned(), self.unknown_line_type.is_some()),
        ];
        match self.phone_lookup {
            PhoneLookupName::Twilio if self.twilio_user.is_some() && self.twilio_password.is_some() => Ok(()),
            PhoneLookupName::Twilio => Err(format!(
                "VIVAMO_PHONE_LOOKUP=twilio (--phone-lookup) requires {TWILIO_USER} and {TWILIO_PASSWORD}."
            )),
            PhoneLookupName::Metadata => match settings.into_iter().find(|(_, is_set)| *is_set) {
                Some((name, _)) => Err(format!(
                    "{name} has no effect without Twilio. Set VIVAMO_PHONE_LOOKUP=twilio (--phone-lookup), or unset {name}."
                )),
                None => Ok(()),
            },
        }
    }
}
