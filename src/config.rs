//! The settings of the service: each a flag and an environment variable.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use axum::http::HeaderValue;
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use entity::deployment::Environment;

const SHARED: &str = "Options of all commands";

/// Shared by all commands. The doc comments are what `--help` prints.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// The database: `sqlite://FILE`, made where there is none, or `postgres://USER:PASSWORD@HOST/DATABASE`
    #[arg(long, env = "DATABASE_URL", default_value = "sqlite://vivamo.db", hide_env_values = true, global = true, help_heading = SHARED)]
    pub database_url: String,

    /// `sandbox` for trying out, `production` for real customers: what production refuses in emails and phones, sandbox
    /// warns of
    #[arg(long, env = "VIVAMO_ENVIRONMENT", default_value = "sandbox", global = true, help_heading = SHARED)]
    pub environment: EnvironmentName,

    /// The secret under which keys are hashed and cursors signed: at least 32 bytes, required in production, fixed in
    /// sandbox. Another secret invalidates all keys and cursors
    #[arg(long, env = "VIVAMO_KEY_SECRET", hide_env_values = true, global = true, help_heading = SHARED)]
    pub key_secret: Option<SecretString>,
}

/// What `serve` needs besides.
#[derive(Args, Clone, Debug)]
pub struct ServeSettings {
    /// The IP address and port to listen on, such as 127.0.0.1:8000; port 0 takes any free one
    #[arg(long, env = "VIVAMO_LISTEN", default_value = "127.0.0.1:8000")]
    pub listen: SocketAddr,

    /// The platform's own key, which reads everything: at least 32 characters in production. Unset, no key does
    #[arg(long, env = "VIVAMO_PLATFORM_KEY", hide_env_values = true)]
    pub platform_key: Option<SecretString>,

    /// The IP address and port of /metrics, for Prometheus; unset, there is none. Do not show it to clients
    #[arg(long, env = "VIVAMO_METRICS", value_name = "LISTEN")]
    pub metrics: Option<SocketAddr>,

    /// Whether to serve GraphiQL at /graphiql; by default in sandbox alone
    #[arg(long, env = "VIVAMO_GRAPHIQL")]
    pub graphiql: Option<bool>,

    /// What a key may spend in a second, with ten seconds saved up: a query costs 1 for each field at its root, a mutation
    /// 10. 0: no limit
    #[arg(long, env = "VIVAMO_COST_PER_SECOND", default_value_t = 200)]
    pub cost_per_second: u32,

    /// How often a minute an address may come with a wrong key. 0: no limit
    #[arg(long, env = "VIVAMO_AUTH_FAILURES_PER_MINUTE", default_value_t = 30)]
    pub auth_failures_per_minute: u32,

    /// How often an hour an operator may be told of people who are not its customers, such as by CONNECTED. 0: no limit,
    /// for an operator that brings in many known people at once
    #[arg(long, env = "VIVAMO_DISCLOSURES_PER_HOUR", default_value_t = 100)]
    pub disclosures_per_hour: u32,

    /// The proxies in front, whose X-Forwarded-For says where a request comes from: addresses or networks such as
    /// 10.0.0.0/8, with commas between them
    #[arg(long, env = "VIVAMO_TRUSTED_PROXIES", value_name = "NETWORKS", value_delimiter = ',', value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,

    /// The web pages that may call from a browser, such as https://dashboard.example.com, with commas between them
    #[arg(long, env = "VIVAMO_CORS_ORIGINS", value_name = "ORIGINS", value_delimiter = ',', value_parser = origin)]
    pub cors_origins: Vec<HeaderValue>,

    /// A file of domains, one a line, that count as disposable beside the list that is built in
    #[arg(long, env = "VIVAMO_DISPOSABLE_DOMAINS", value_name = "FILE")]
    pub disposable_domains: Option<PathBuf>,

    /// A file of domains, one a line, that do not count as disposable whatever the lists say
    #[arg(long, env = "VIVAMO_ALLOWED_DOMAINS", value_name = "FILE")]
    pub allowed_domains: Option<PathBuf>,

    /// Who says in production which phones are mobile lines: the numbering plan (`metadata`), or the carriers, by way of
    /// Twilio Lookup
    #[arg(long, env = "VIVAMO_PHONE_LOOKUP", default_value = "metadata")]
    pub phone_lookup: PhoneLookupName,

    /// Where Twilio Lookup is
    #[arg(long, env = "VIVAMO_TWILIO_URL", value_name = "URL", default_value = "https://lookups.twilio.com", value_parser = url)]
    pub twilio_url: Url,

    /// The SID of Twilio's API key (SK…) or account (AC…)
    #[arg(long, env = "VIVAMO_TWILIO_USER")]
    pub twilio_user: Option<String>,

    /// The secret of that key, or the account's token
    #[arg(long, env = "VIVAMO_TWILIO_PASSWORD", hide_env_values = true)]
    pub twilio_password: Option<SecretString>,

    /// What to do with a phone of which its carrier cannot say what line it is [default: refuse]
    #[arg(long, env = "VIVAMO_UNKNOWN_LINE_TYPE")]
    pub unknown_line_type: Option<UnknownLineType>,
}

/// An address counts as a network of one.
fn network(text: &str) -> Result<IpNet, String> {
    let of_one = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse()
        .or_else(|_| of_one())
        .map_err(|_| "an address or a network, such as 10.0.0.0/8, is expected".to_owned())
}

fn url(text: &str) -> Result<Url, String> {
    Url::parse(text)
        .ok()
        .filter(|url| ["http", "https"].contains(&url.scheme()))
        .ok_or_else(|| "a URL is expected, such as https://lookups.twilio.com".to_owned())
}

/// Scheme, host and port, as a browser sends them.
fn origin(text: &str) -> Result<HeaderValue, String> {
    let is_origin = Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == text);
    HeaderValue::from_str(text)
        .ok()
        .filter(|_| is_origin)
        .ok_or_else(|| "an origin is expected, such as https://dashboard.example.com".to_owned())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PhoneLookupName {
    Metadata,
    Twilio,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UnknownLineType {
    Refuse,
    Accept,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EnvironmentName {
    Sandbox,
    Production,
}

impl From<EnvironmentName> for Environment {
    fn from(name: EnvironmentName) -> Self {
        match name {
            EnvironmentName::Sandbox => Self::Sandbox,
            EnvironmentName::Production => Self::Production,
        }
    }
}

/// Known to everyone who reads this, and good for sandbox alone.
const SANDBOX_KEY_SECRET: &str = "vivamo-sandbox-key-secret-known-to-everyone";
const MIN_SECRET_BYTES: usize = 32;
const MAKE_ONE: &str = "Make one with: openssl rand -hex 32";

fn is_short(secret: &SecretString) -> bool {
    secret.expose_secret().len() < MIN_SECRET_BYTES
}

/// As it comes out of a template whose variable was not filled.
fn check_not_blank(name: &str, value: Option<&str>) -> Result<(), String> {
    match value {
        Some(value) if value.trim().is_empty() => {
            Err(format!("{name} is set but empty. Give it a value, or leave it out."))
        }
        _ => Ok(()),
    }
}

impl Settings {
    pub fn environment(&self) -> Environment {
        self.environment.into()
    }

    /// That the settings go together, and what to do if they do not.
    pub fn check(&self) -> Result<(), String> {
        let url = self.database_url.as_str();
        if !["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err("DATABASE_URL must begin with sqlite:// or postgres://".into());
        }
        let is_in_memory =
            |file: &str| ["", "//"].contains(&file) || file.contains(":memory:") || file.contains("mode=memory");
        if url.strip_prefix("sqlite:").is_some_and(is_in_memory) {
            return Err("DATABASE_URL names no file to keep the customers in. Name one: sqlite://FILE".into());
        }
        check_not_blank("VIVAMO_KEY_SECRET", self.key_secret.as_ref().map(ExposeSecret::expose_secret))?;
        if self.environment() == Environment::Sandbox {
            return Ok(());
        }
        match &self.key_secret {
            None => Err(format!("In production VIVAMO_KEY_SECRET is required. {MAKE_ONE}")),
            Some(secret) if is_short(secret) => {
                Err(format!("VIVAMO_KEY_SECRET must have at least 32 bytes. {MAKE_ONE}"))
            }
            Some(secret) if secret.expose_secret() == SANDBOX_KEY_SECRET => {
                Err(format!("VIVAMO_KEY_SECRET is the one of sandbox, which everyone knows. {MAKE_ONE}"))
            }
            Some(_) => Ok(()),
        }
    }

    pub fn is_sqlite(&self) -> bool {
        self.database_url.starts_with("sqlite:")
    }

    pub fn key_secret(&self) -> &str {
        self.key_secret.as_ref().map_or(SANDBOX_KEY_SECRET, |secret| secret.expose_secret())
    }
}

impl ServeSettings {
    /// The same of these and the shared ones.
    pub fn check(&self, shared: &Settings) -> Result<(), String> {
        for (name, value) in [
            ("VIVAMO_PLATFORM_KEY", self.platform_key.as_ref().map(ExposeSecret::expose_secret)),
            ("VIVAMO_TWILIO_USER", self.twilio_user.as_deref()),
            ("VIVAMO_TWILIO_PASSWORD", self.twilio_password.as_ref().map(ExposeSecret::expose_secret)),
        ] {
            check_not_blank(name, value)?;
        }
        if let Some(key) = &self.platform_key {
            if shared.environment() == Environment::Production && is_short(key) {
                return Err(format!("In production VIVAMO_PLATFORM_KEY must have at least 32 characters. {MAKE_ONE}"));
            }
            if key.expose_secret() == shared.key_secret() {
                return Err(format!(
                    "VIVAMO_PLATFORM_KEY and VIVAMO_KEY_SECRET are the same, and who calls with the one must not know the \
                     other. {MAKE_ONE}"
                ));
            }
        }
        if self.metrics == Some(self.listen) && self.listen.port() != 0 {
            return Err(format!(
                "VIVAMO_METRICS and VIVAMO_LISTEN are both {}. Give the metrics a port of their own.",
                self.listen
            ));
        }
        let of_twilio = [
            ("VIVAMO_TWILIO_USER", self.twilio_user.is_some()),
            ("VIVAMO_TWILIO_PASSWORD", self.twilio_password.is_some()),
            ("VIVAMO_UNKNOWN_LINE_TYPE", self.unknown_line_type.is_some()),
        ];
        match of_twilio.iter().find(|(_, is_set)| *is_set) {
            Some((name, _)) if self.phone_lookup == PhoneLookupName::Metadata => {
                Err(format!("{name} is set, but no carrier is asked. Set VIVAMO_PHONE_LOOKUP=twilio, or leave it out."))
            }
            _ => Ok(()),
        }
    }
}
