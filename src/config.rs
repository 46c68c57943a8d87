//! The settings of the service: each a flag and an environment variable.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use axum::http::HeaderValue;
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use entity::deployment::Environment;

/// Shared by all commands. The doc comments are what `--help` prints.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// The database: `sqlite://FILE`, made where there is none, or `postgres://USER:PASSWORD@HOST/DATABASE`
    #[arg(long, env = "DATABASE_URL", default_value = "sqlite://vivamo.db", hide_env_values = true, global = true)]
    pub database_url: String,

    /// `sandbox` for trying out, `production` for real customers: what production refuses in emails and phones, sandbox
    /// warns of
    #[arg(long, env = "VIVAMO_ENVIRONMENT", default_value = "sandbox", global = true)]
    pub environment: EnvironmentName,

    /// The platform's own key, which reads everything: at least 32 characters in production. Unset, no key does
    #[arg(long, env = "VIVAMO_PLATFORM_KEY", hide_env_values = true, global = true)]
    pub platform_key: Option<SecretString>,

    /// The secret under which keys are hashed and cursors signed: at least 32 bytes, required in production, fixed in
    /// sandbox. Another secret invalidates all keys and cursors
    #[arg(long, env = "VIVAMO_KEY_SECRET", hide_env_values = true, global = true)]
    pub key_secret: Option<SecretString>,
}

/// What `serve` needs besides.
#[derive(Args, Clone, Debug)]
pub struct ServeSettings {
    /// The IP address and port to listen on, such as 127.0.0.1:8000; port 0 takes any free one
    #[arg(long, env = "VIVAMO_LISTEN", default_value = "127.0.0.1:8000", global = true)]
    pub listen: SocketAddr,

    /// The IP address and port of /metrics, for Prometheus; unset, there is none. Do not show it to clients
    #[arg(long, env = "VIVAMO_METRICS", value_name = "LISTEN", global = true)]
    pub metrics: Option<SocketAddr>,

    /// Whether to serve GraphiQL at /graphiql; by default in sandbox alone
    #[arg(long, env = "VIVAMO_GRAPHIQL", global = true)]
    pub graphiql: Option<bool>,

    /// What a key may spend in a second, with ten seconds saved up: a query costs 1 for each field at its root, a mutation
    /// 10. 0: no limit
    #[arg(long, env = "VIVAMO_RATE_LIMIT", default_value_t = 200, global = true)]
    pub rate_limit: u32,

    /// How often a minute an address may come with a wrong key. 0: no limit
    #[arg(long, env = "VIVAMO_WRONG_KEYS", default_value_t = 30, global = true)]
    pub wrong_keys: u32,

    /// How often an hour an operator may be told of people who are not its customers, such as by CONNECTED. 0: no limit,
    /// for an operator that brings in many known people at once
    #[arg(long, env = "VIVAMO_STRANGERS", default_value_t = 100, global = true)]
    pub strangers: u32,

    /// The proxies in front, whose X-Forwarded-For says where a request comes from: addresses or networks such as
    /// 10.0.0.0/8, with commas between them
    #[arg(long, env = "VIVAMO_TRUSTED_PROXIES", value_name = "NETWORKS", value_delimiter = ',', value_parser = network, global = true)]
    pub trusted_proxies: Vec<IpNet>,

    /// The web pages that may call from a browser, such as https://dashboard.example.com, with commas between them
    #[arg(long, env = "VIVAMO_ORIGINS", value_name = "ORIGINS", value_delimiter = ',', value_parser = origin, global = true)]
    pub origins: Vec<HeaderValue>,

    /// A file of domains, one a line, that count as disposable beside the list that is built in
    #[arg(long, env = "VIVAMO_DISPOSABLE_DOMAINS", value_name = "FILE", global = true)]
    pub disposable_domains: Option<PathBuf>,

    /// A file of domains, one a line, that do not count as disposable whatever the lists say
    #[arg(long, env = "VIVAMO_ALLOWED_DOMAINS", value_name = "FILE", global = true)]
    pub allowed_domains: Option<PathBuf>,

    /// Who says in production which phones are mobile lines: the numbering plan (`metadata`), or the carriers, by way of
    /// Twilio Lookup
    #[arg(long, env = "VIVAMO_PHONE_LOOKUP", default_value = "metadata", global = true)]
    pub phone_lookup: PhoneLookupName,

    /// Where Twilio Lookup is
    #[arg(long, env = "VIVAMO_TWILIO_URL", default_value = "https://lookups.twilio.com", global = true)]
    pub twilio_url: Url,

    /// The SID of Twilio's API key (SK…) or account (AC…)
    #[arg(long, env = "VIVAMO_TWILIO_USER", global = true)]
    pub twilio_user: Option<String>,

    /// The secret of that key, or the account's token
    #[arg(long, env = "VIVAMO_TWILIO_PASSWORD", hide_env_values = true, global = true)]
    pub twilio_password: Option<SecretString>,

    /// What to do with a phone of which its carrier cannot say what line it is
    #[arg(long, env = "VIVAMO_UNKNOWN_PHONES", default_value = "refuse", global = true)]
    pub unknown_phones: UnknownPhones,
}

/// An address counts as a network of one.
fn network(text: &str) -> Result<IpNet, String> {
    let of_one = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse()
        .or_else(|_| of_one())
        .map_err(|_| "an address or a network, such as 10.0.0.0/8, is expected".to_owned())
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
pub enum UnknownPhones {
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
const LEAST_SECRET_BYTES: usize = 32;

impl Settings {
    pub fn environment(&self) -> Environment {
        self.environment.into()
    }

    /// That the settings go together, and what to do if they do not.
    pub fn check(&self) -> Result<(), String> {
        if !["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| self.database_url.starts_with(scheme)) {
            return Err("DATABASE_URL must begin with sqlite:// or postgres://".into());
        }
        let is_short = |secret: &SecretString| secret.expose_secret().len() < LEAST_SECRET_BYTES;
        if self.platform_key.as_ref().is_some_and(|key| key.expose_secret().trim().is_empty()) {
            return Err("VIVAMO_PLATFORM_KEY is set but empty. Set it to a long random text, or leave it out.".into());
        }
        if self.environment() == Environment::Production {
            match &self.key_secret {
                None => {
                    return Err(
                        "In production VIVAMO_KEY_SECRET is required. Make one with: openssl rand -hex 32".into()
                    );
                }
                Some(secret) if is_short(secret) => {
                    return Err(
                        "VIVAMO_KEY_SECRET must have at least 32 bytes. Make one with: openssl rand -hex 32".into()
                    );
                }
                Some(secret) if secret.expose_secret() == SANDBOX_KEY_SECRET => {
                    return Err("VIVAMO_KEY_SECRET is the one of sandbox, which everyone knows. Make one with: \
                                openssl rand -hex 32"
                        .into());
                }
                Some(_) => {}
            }
            if self.platform_key.as_ref().is_some_and(is_short) {
                return Err("In production VIVAMO_PLATFORM_KEY must have at least 32 characters. Make one with: \
                            openssl rand -hex 32"
                    .into());
            }
        }
        Ok(())
    }

    pub fn is_sqlite(&self) -> bool {
        self.database_url.starts_with("sqlite:")
    }

    pub fn key_secret(&self) -> &str {
        self.key_secret.as_ref().map_or(SANDBOX_KEY_SECRET, |secret| secret.expose_secret())
    }
}
