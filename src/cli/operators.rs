//! `vivamo operator`: creates, lists, changes, suspends and resumes operators, and disconnects their customers.

use clap::{ArgGroup, Args, Subcommand};
use entity::operator::{self, Status};
use entity::value::{DisplayName, OperatorId};
use indicatif::ProgressBar;
use sea_orm::ActiveEnum;
use serde_json::json;

use super::print::{self, Format};
use super::{display_name, operator_id};
use crate::fatal_error::FatalError;
use crate::service::operators::OperatorChanges;
use crate::service::{Caller, RequestInfo, Services};

#[derive(Debug, Args)]
pub struct OperatorArgs {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: OperatorCommand,
}

#[derive(Debug, Subcommand)]
enum OperatorCommand {
    /// Create an operator and its first API key. The key is shown only once
    Create {
        /// Name of the operator, 1 to 100 characters
        #[arg(value_parser = display_name)]
        name: DisplayName,
    },
    /// List all operators
    List,
    /// Rename an operator, or change its disclosure budget
    #[command(group(ArgGroup::new("change").required(true).multiple(true).args(["name", "disclosures_per_hour"])))]
    Update {
        /// Id of the operator, for example op_01h455vb4pex5vsknk084sn02q
        #[arg(value_parser = operator_id)]
        operator: OperatorId,
        /// New name of the operator, 1 to 100 characters
        #[arg(long, value_parser = display_name)]
        name: Option<DisplayName>,
        /// Disclosure budget: disclosures per hour on each server, at least 1 (see `vivamo serve --help`). `default`
        /// stands for VIVAMO_DISCLOSURES_PER_HOUR
        #[arg(long, value_name = "COUNT", value_parser = Budget::parse)]
        disclosures_per_hour: Option<Budget>,
    },
    /// Suspend an operator. All its keys stop working on all servers within a second, and its webhook deliveries pause
    Suspend {
        /// Id of the operator
        #[arg(value_parser = operator_id)]
        operator: OperatorId,
    },
    /// Resume a suspended operator. Its keys work again on all servers within a second, and its webhook deliveries
    /// continue
    Resume {
        /// Id of the operator
        #[arg(value_parser = operator_id)]
        operator: OperatorId,
    },
    /// Disconnect all customers of a suspended operator that has left the platform. Wait 40 seconds after the
    /// suspension, because requests in flight may still connect customers. This cannot be undone. If the command is
    /// interrupted, run it again
    RemoveCustomers {
        /// Id of the operator
        #[arg(value_parser = operator_id)]
        operator: OperatorId,
    },
}

/// A disclosure budget. `None` stands for the default.
#[derive(Clone, Copy, Debug)]
struct Budget(Option<i32>);

impl Budget {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text.parse() {
            Ok(budget @ 1..) => Ok(Self(Some(budget))),
            Err(_) if text == "default" => Ok(Self(None)),
            _ => Err("expected a number of at least 1, or `default`"),
        }
    }
}

pub async fn run(args: OperatorArgs, services: &Services) -> Result<(), FatalError> {
    let OperatorArgs { json, command } = args;
    let format = Format::new(json);
    let (operators, request) = (&services.operators, &RequestInfo::command_line());
    let update = async |operator, changes| {
        let operator = operators.update(&Caller::Platform, request, operator, changes).await?;
        print_operators(format, vec![operator])
    };
    match command {
        OperatorCommand::Create { name } => {
            let (operator, key) = operators.create(&Caller::Platform, request, name).await?;
            print::new_key(format, &operator.id.to_string(), operator.name.as_str(), &key)
        }
        OperatorCommand::List => print_operators(format, operators.list(&Caller::Platform).await?),
        OperatorCommand::Update { operator, name, disclosures_per_hour } => {
            let disclosures_per_hour = disclosures_per_hour.map(|Budget(budget)| budget);
            update(operator, OperatorChanges { name, disclosures_per_hour, ..Default::default() }).await
        }
        OperatorCommand::Suspend { operator } => {
            let changes = OperatorChanges { status: Some(Status::Suspended), ..Default::default() };
            update(operator, changes).await
        }
        OperatorCommand::Resume { operator } => {
            let changes = OperatorChanges { status: Some(Status::Active), ..Default::default() };
            update(operator, changes).await
        }
        OperatorCommand::RemoveCustomers { operator } => {
            let removed = remove_customers(services, request, operator).await?;
            let object = json!({ "id": operator.to_string(), "disconnected": removed });
            let line = format!("Customers disconnected from {operator}: {removed}");
            match format {
                Format::Json => print::text(&format!("{object}\n")),
                Format::Table => print::text(&format!("{line}\n")),
            }
        }
    }
}

/// Disconnects all customers of an operator and returns their number. Shows the progress if standard error is a
/// terminal.
async fn remove_customers(services: &Services, request: &RequestInfo, operator: OperatorId) -> Result<u64, FatalError> {
    let customers = &services.customers;
    let progress = ProgressBar::new(customers.start_removing_customers(&Caller::Platform, request, operator).await?);
    customers.remove_customers(&Caller::Platform, request, operator, |removed| progress.inc(removed)).await?;
    progress.finish_and_clear();
    Ok(progress.position())
}

fn print_operators(format: Format, operators: Vec<operator::Model>) -> Result<(), FatalError> {
    let row = |operator: operator::Model| {
        [
            json!(operator.id.to_string()),
            json!(operator.name.as_str()),
            json!(operator.created_at.to_rfc3339()),
            json!(operator.status.to_value().to_uppercase()),
            json!(operator.disclosures_per_hour),
        ]
    };
    let columns = ["id", "name", "createdAt", "status", "disclosuresPerHour"];
    print::rows(format, columns, operators.into_iter().map(row))
}
