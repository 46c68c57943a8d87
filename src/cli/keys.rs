//! `vivamo key`: creates, lists and revokes API keys.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use entity::api_key::{self, Access};
use entity::value::{ApiKeyId, DisplayName, OperatorId};
use sea_orm::ActiveEnum;
use serde_json::json;

use super::print::{self, Format};
use super::{display_name, operator_id};
use crate::error::{Error, ErrorCode, InputField};
use crate::fatal_error::FatalError;
use crate::service::api_keys::NewApiKey;
use crate::service::{Caller, RequestInfo, Services, check_year, now, without_leap_second};

#[derive(Debug, Args)]
pub struct KeyArgs {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Create an API key for an operator. The key is shown only once
    Create {
        /// Id of the operator, for example op_01h455vb4pex5vsknk084sn02q
        #[arg(value_parser = operator_id)]
        operator: OperatorId,
        /// Name of the key, 1 to 100 characters, so that you can recognise the key
        #[arg(long, value_parser = display_name)]
        name: DisplayName,
        /// Allow queries only, no mutations
        #[arg(long)]
        read_only: bool,
        /// Time at which the key expires, for example 2027-01-31T00:00:00Z. If omitted, the key does not expire
        #[arg(long, value_name = "TIME", value_parser = future_time)]
        expires_at: Option<DateTime<Utc>>,
    },
    /// List the API keys of one operator, or of all operators
    List {
        /// Id of the operator
        #[arg(value_parser = operator_id)]
        operator: Option<OperatorId>,
    },
    /// Revoke an API key permanently. The key stops working on all servers within a second
    Revoke {
        /// Id of the key, for example key_01h455vb4pex5vsknk084sn02q
        #[arg(value_parser = key_id)]
        id: ApiKeyId,
    },
    /// Revoke all API keys of an operator permanently, for example after a leak. Print the keys that were revoked
    RevokeAll {
        /// Id of the operator
        #[arg(value_parser = operator_id)]
        operator: OperatorId,
    },
}

fn key_id(text: &str) -> Result<ApiKeyId, &'static str> {
    ApiKeyId::parse(text).ok_or("not the id of a key (key_…). `vivamo key list` shows the ids")
}

fn future_time(text: &str) -> Result<DateTime<Utc>, &'static str> {
    let time = text.parse().map_err(|_| "expected a time, for example 2027-01-31T00:00:00Z")?;
    let time = without_leap_second(time);
    if time <= now() {
        return Err("must be in the future, for example 2027-01-31T00:00:00Z");
    }
    let too_late = |_| "must be before the year 10000 in UTC, for example 2027-01-31T00:00:00Z";
    check_year(time, InputField::ExpiresAt).map_err(too_late)
}

pub async fn run(args: KeyArgs, services: &Services) -> Result<(), FatalError> {
    let KeyArgs { json, command } = args;
    let format = Format::new(json);
    let (keys, request) = (&services.api_keys, &RequestInfo::command_line());
    match command {
        KeyCommand::Create { operator, name, read_only, expires_at } => {
            let access = if read_only { Access::ReadOnly } else { Access::ReadWrite };
            let key = NewApiKey { name, access, expires_at };
            let created = keys.create(&Caller::Platform, request, operator, key).await?;
            print::new_key(format, &created.row.id.to_string(), created.row.name.as_str(), &created)
        }
        KeyCommand::List { operator: None } => print_keys(format, keys.list(&Caller::Platform).await?),
        KeyCommand::List { operator: Some(operator) } => {
            let found = keys.list_by_operators(&Caller::Platform, &[operator]).await?.remove(&operator);
            // Every operator is created with a first key, and keys are never deleted. An id that has no keys is
            // therefore not the id of an operator.
            let found = found.filter(|keys| !keys.is_empty()).ok_or(Error::from(ErrorCode::OperatorNotFound))?;
            print_keys(format, found)
        }
        KeyCommand::Revoke { id } => print_keys(format, vec![keys.revoke(&Caller::Platform, request, id).await?]),
        KeyCommand::RevokeAll { operator } => {
            print_keys(format, keys.revoke_all(&Caller::Platform, request, operator).await?)
        }
    }
}

fn print_keys(format: Format, keys: Vec<api_key::Model>) -> Result<(), FatalError> {
    let columns = ["id", "operatorId", "name", "prefix", "access", "createdAt", "expiresAt", "lastUsedAt", "revokedAt"];
    let row = |key: api_key::Model| {
        [
            json!(key.id.to_string()),
            json!(key.operator_id.to_string()),
            json!(key.name.as_str()),
            json!(key.prefix),
            json!(key.access.to_value().to_uppercase()),
            json!(key.created_at.to_rfc3339()),
            json!(key.expires_at.map(|time| time.to_rfc3339())),
            json!(key.last_used_at.map(|time| time.to_rfc3339())),
            json!(key.revoked_at.map(|time| time.to_rfc3339())),
        ]
    };
    print::rows(format, columns, keys.into_iter().map(row))
}
