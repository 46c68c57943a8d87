//! `vivamo customer`: erases customers.

use clap::{Args, Subcommand};
use entity::value::{CustomerId, ErasureReference};
use serde_json::json;

use super::print::{self, Format};
use crate::fatal_error::FatalError;
use crate::service::customers::EraseRequest;
use crate::service::{Caller, RequestInfo, Services};

#[derive(Debug, Args)]
pub struct CustomerArgs {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: CustomerCommand,
}

#[derive(Debug, Subcommand)]
enum CustomerCommand {
    /// Erase a customer, like the mutation `eraseCustomer`, but without its time limit. This cannot be undone. If the
    /// command prints no receipt, look for one with the query `erasures` before you run the command again
    Erase {
        /// Id of the customer, for example cus_01h455vb4pex5vsknk084sn02q
        #[arg(value_parser = customer_id)]
        customer: CustomerId,
        /// Your reference for the erasure, for example a ticket number, 1 to 100 characters. It is stored, so it must
        /// not contain personal data
        #[arg(value_parser = reference)]
        reference: ErasureReference,
    },
}

pub async fn run(args: CustomerArgs, services: &Services) -> Result<(), FatalError> {
    let CustomerArgs { json, command: CustomerCommand::Erase { customer, reference } } = args;
    let erase = EraseRequest { customer, reference, idempotency_key: None };
    let erasure = services.customers.erase(&Caller::Platform, &RequestInfo::command_line(), erase).await?.erasure;
    let row = [
        json!(erasure.id.to_string()),
        json!(erasure.customer_id.to_string()),
        json!(erasure.erased_at.to_rfc3339()),
        json!(erasure.reference.as_str()),
        json!(erasure.request_id.to_string()),
        json!(erasure.operators),
        json!(erasure.entries),
    ];
    let columns = ["id", "customerId", "erasedAt", "reference", "requestId", "operators", "entries"];
    print::rows(Format::new(json), columns, [row])
}

fn customer_id(text: &str) -> Result<CustomerId, &'static str> {
    CustomerId::parse(text).ok_or("not the id of a customer (cus_…)")
}

fn reference(text: &str) -> Result<ErasureReference, String> {
    ErasureReference::parse(text).map_err(|reason| format!("the reference {reason}"))
}
