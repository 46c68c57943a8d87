//! `vivamo key`: creates, lists and revokes API keys.

use chrono::{DateTime, Utc};
use clap::Subcommand;
use entity::api_key::{self, Access};
use entity::value::{ApiKeyId, DisplayName, OperatorId};
use sea_orm::ActiveEnum;

use super::print::{self, Format};
use super::{CliError, display_name};
use crate::error::{Error, ErrorCode};
use crate::service::api_keys::KeyRequest;
use crate::service::{Actor, Services, now};

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Create an API key for an operator. The key is shown only once
    Create {
        /// Id of the operator, for example op_01h455vb4pex5vsknk084sn02q
        #[arg(value_parser = operator_id)]
        operator: OperatorId,
        /// Name of the key, 1 to 100 characters, to recognise it by
        #[arg(long, value_parser = display_name)]
        name: DisplayName,
        /// Allow queries only, no mutations
        #[arg(long)]
        read_only: bool,
        /// Time at which the key expires, for example 2027-01-31T00:00:00Z. If omitted, it does not expire
        #[arg(long, value_name = "TIME", value_parser = future_time)]
        expires_at: Option<DateTime<Utc>>,
        #[command(flatten)]
        format: Format,
    },
    /// List the API keys of one operator, or all
    List {
        /// Id of the operator
        #[arg(value_parser = operator_id)]
        operator: Option<OperatorId>,
        #[command(flatten)]
        format: Format,
    },
    /// Revoke an API key permanently. It stops working on all servers within a second
    Revoke {
        /// Id of the key, for example key_01h455vb4pex5vsknk084sn02q
        #[arg(value_parser = key_id)]
        id: ApiKeyId,
        #[command(flatten)]
        format: Format,
    },
}

fn operator_id(text: &str) -> Result<OperatorId, &'static str> {
    OperatorId::parse(text).ok_or("not the id of an operator. `vivamo operator list` shows them (op_…)")
}

fn key_id(text: &str) -> Result<ApiKeyId, &'static str> {
    ApiKeyId::parse(text).ok_or("not the id of a key. `vivamo key list` shows them (key_…)")
}

fn future_time(text: &str) -> Result<DateTime<Utc>, &'static str> {
    let time = text.parse().map_err(|_| "expected a time, for example 2027-01-31T00:00:00Z")?;
    if time > now() { Ok(time) } else { Err("must be in the future, for example 2027-01-31T00:00:00Z") }
}

pub async fn run(command: KeyCommand, services: &Services) -> Result<(), CliError> {
    let keys = &services.api_keys;
    match command {
        KeyCommand::Create { operator, name, read_only, expires_at, format } => {
            let access = if read_only { Access::ReadOnly } else { Access::ReadWrite };
            let request = KeyRequest { name, access, expires_at };
            let key = keys.create(&Actor::Platform, operator, request).await?;
            print::new_key(format, &key.row.id.to_string(), key.row.name.as_str(), &key);
        }
        KeyCommand::List { operator: None, format } => print_keys(format, keys.list(&Actor::Platform).await?),
        KeyCommand::List { operator: Some(operator), format } => {
            let found = keys.by_operator(&Actor::Platform, &[operator]).await?.remove(&operator).unwrap_or_default();
            // An operator is created with its first key, so no keys means no operator.
            if found.is_empty() {
                return Err(Error::from(ErrorCode::OperatorNotFound).into());
            }
            print_keys(format, found);
        }
        KeyCommand::Revoke { id, format } => print_keys(format, vec![keys.revoke(&Actor::Platform, id).await?]),
    }
    Ok(())
}

fn print_keys(format: Format, keys: Vec<api_key::Model>) {
    let columns = ["id", "operatorId", "name", "prefix", "access", "createdAt", "expiresAt", "lastUsedAt", "revokedAt"];
    let row = |key: api_key::Model| {
        [
            Some(key.id.to_string()),
            Some(key.operator_id.to_string()),
            Some(key.name.as_str().to_owned()),
            Some(key.prefix),
            Some(key.access.to_value().to_uppercase()),
            Some(key.created_at.to_rfc3339()),
            key.expires_at.map(|time| time.to_rfc3339()),
            key.last_used_at.map(|time| time.to_rfc3339()),
            key.revoked_at.map(|time| time.to_rfc3339()),
        ]
    };
    print::rows(format, columns, keys.into_iter().map(row));
}
