//! `vivamo operator`: creates and lists operators.

use clap::Subcommand;
use entity::value::DisplayName;

use super::{display_name, print};
use crate::app::Failure;
use crate::service::{Actor, Services};

#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// Create an operator and its first API key. The key is shown only once
    Create {
        /// Name of the operator, 1 to 100 characters
        #[arg(value_parser = display_name)]
        name: DisplayName,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List all operators
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub async fn run(command: OperatorCommand, services: &Services) -> Result<(), Failure> {
    match command {
        OperatorCommand::Create { name, json } => {
            let (operator, key) = services.operators.create(&Actor::Platform, name).await?;
            print::new_key(json, &operator.id.to_string(), operator.name.as_str(), &key);
        }
        OperatorCommand::List { json } => {
            let operators = services.operators.list(&Actor::Platform).await?;
            let row = |operator: entity::operator::Model| {
                [operator.id.to_string(), operator.name.as_str().to_owned(), operator.created_at.to_rfc3339()].map(Some)
            };
            print::rows(json, ["id", "name", "createdAt"], operators.into_iter().map(row));
        }
    }
    Ok(())
}
