//! `vivamo customer`: erases customers.

use std::io::Write;

use clap::{Args, Subcommand};
use entity::erasure;
use entity::value::{CustomerId, ErasureReference, IdempotencyKey};
use serde_json::json;

use super::print::{self, Format};
use crate::error::{Error, ErrorCode};
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
    let erasure = erase(services, customer, reference).await?;
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

/// Erases a customer. Tries again if the erasure is `UNAVAILABLE`, for example because of a conflict: a long erasure
/// has used up the time in which a transaction is otherwise repeated.
async fn erase(
    services: &Services,
    customer: CustomerId,
    reference: ErasureReference,
) -> Result<erasure::Model, FatalError> {
    const MAX_ATTEMPTS: u32 = 4;
    let request = RequestInfo::command_line();
    // If an attempt commits although it fails, for example because the connection is lost, the next attempt finds its
    // receipt.
    let idempotency_key = IdempotencyKey::parse(&request.id.to_string()).ok();
    let mut attempts = 1;
    loop {
        let reference = reference.clone();
        let erase = EraseRequest { customer, reference, idempotency_key: idempotency_key.clone() };
        match services.customers.erase(&Caller::Platform, &request, erase).await {
            Err(Error::Failed { code: ErrorCode::Unavailable, cause, .. }) if attempts < MAX_ATTEMPTS => {
                attempts += 1;
                let _ = writeln!(std::io::stderr(), "trying again: {cause}");
            }
            erased => return Ok(erased?.erasure),
        }
    }
}

fn customer_id(text: &str) -> Result<CustomerId, &'static str> {
    CustomerId::parse(text).ok_or("not the id of a customer (cus_…)")
}

fn reference(text: &str) -> Result<ErasureReference, String> {
    ErasureReference::parse(text).map_err(|reason| format!("the reference {reason}"))
}
