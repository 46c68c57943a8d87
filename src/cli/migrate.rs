//! `vivamo migrate`: applies pending migrations.

use super::{CliError, open_services, print};
use crate::config::Settings;
use crate::service::Actor;

pub async fn run(settings: &Settings) -> Result<(), CliError> {
    let services = open_services(settings, true).await?;
    // Customers that an older version wrote during the upgrade have no search words yet.
    services.customers.add_missing_words(&Actor::Platform).await?;
    print::text("The database is up to date.\n");
    Ok(())
}
