//! `vivamo serve`: starts the service with the configured settings, and serves until SIGINT or SIGTERM.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use entity::deployment::Environment;
use entity::value::DisplayName;
use secrecy::ExposeSecret;
use tokio::signal::unix::{SignalKind, signal};

use super::{database_settings, print, service_settings};
use crate::app::{App, AppSettings};
use crate::config::{PhoneLookupName, ServeSettings, Settings};
use crate::database::sqlite_file;
use crate::fatal_error::FatalError;
use crate::jobs::JobSettings;
use crate::service::disposable_domains::{self, DisposableDomains};
use crate::service::phone_lookup::{CarrierSettings, Twilio, TwilioTimeouts};
use crate::service::webhooks::addresses::AddressFilter;
use crate::service::{Caller, RequestInfo, ServiceSettings, Services};
use crate::telemetry::{self, Log};

/// Runs the server. Returns its log, which must be kept until the tasks of the server have ended: the requests that the
/// stop cuts off write their lines last.
pub async fn run(settings: Settings, serve: ServeSettings) -> Result<Log, FatalError> {
    let serve = serve.read_files().map_err(FatalError::Usage)?;
    serve.check(&settings).map_err(FatalError::Usage)?;
    let app_settings = app_settings(&settings, serve)?;
    let with_graphiql = app_settings.http.graphiql != Some(false);
    let log = telemetry::start(settings.environment).map_err(FatalError::Usage)?;
    // Each connection of a client is an open file, and the soft limit is often only 1,024. A system that cannot raise
    // it keeps it, and the server then warns when it cannot accept a connection.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let stop = stop_signal().map_err(|error| FatalError::Other(format!("Cannot wait for signals: {error}")))?;
    let mut stop = pin!(stop);
    let app = tokio::select! {
        app = App::start(app_settings) => app?,
        () = &mut stop => {
            tracing::info!("stopped before the start was complete");
            return Ok(log);
        }
    };
    let address = app.address;
    if settings.environment == Environment::Sandbox && sqlite_file(&settings.database_url).is_some() {
        create_demo_operator(&app.services, &format!("http://{address}"), with_graphiql).await?;
    }
    tracing::info!(environment = ?settings.environment, "listening on http://{address}");
    app.run_until(stop).await;
    tracing::info!("stopped");
    Ok(log)
}

fn app_settings(settings: &Settings, serve: ServeSettings) -> Result<AppSettings, FatalError> {
    const DATABASE_WAIT: u32 = 30;
    let ServeSettings { listen, platform_key, http, changes_days, limits, restrictions, webhooks, .. } = serve;
    let twilio_url = restrictions.parse_twilio_url().map_err(FatalError::Usage)?;
    let disposable_domains = DisposableDomains::new(
        read_domains("VIVAMO_DISPOSABLE_DOMAINS (--disposable-domains)", restrictions.disposable_domains)?,
        read_domains("VIVAMO_ALLOWED_DOMAINS (--allowed-domains)", restrictions.allowed_domains)?,
    );
    let unknown_lines = restrictions.unknown_line_type.unwrap_or_default();
    let carrier = match restrictions.phone_lookup {
        PhoneLookupName::Metadata => None,
        PhoneLookupName::Twilio => {
            let credentials = restrictions.twilio_user.zip(restrictions.twilio_password);
            let (user, password) =
                credentials.ok_or_else(|| FatalError::Usage("The credentials for Twilio are missing.".to_owned()))?;
            let timeouts = TwilioTimeouts::default();
            let twilio = Twilio::new(twilio_url, user, password, timeouts).map_err(|error| {
                FatalError::Other(format!(
                    "Cannot set up Twilio Lookup: {error}. Install the CA certificates of the system."
                ))
            })?;
            Some(CarrierSettings { lookup: Arc::new(twilio), unknown_lines })
        }
    };
    Ok(AppSettings {
        database: database_settings(settings, DATABASE_WAIT),
        services: ServiceSettings {
            platform_key,
            disposable_domains,
            carrier,
            limits,
            webhook_addresses: AddressFilter::new(webhooks.webhook_networks),
            ..service_settings(settings)
        },
        listen,
        http,
        jobs: Some(JobSettings { changes_days }),
        writes_json: true,
    })
}

/// Reads the file of domains that a setting names. Without a file, returns no domains.
fn read_domains(setting: &str, file: Option<PathBuf>) -> Result<Vec<String>, FatalError> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let text = std::fs::read_to_string(&file).map_err(|error| error.to_string());
    text.and_then(|text| disposable_domains::parse_list(&text)).map_err(|error| {
        let file = file.display();
        FatalError::Usage(format!("Cannot read the domains in {file}: {error}. Correct the file, or change {setting}."))
    })
}

/// Creates an operator in a database that has none. Prints the operator's key, and an example request that works.
async fn create_demo_operator(services: &Services, url: &str, with_graphiql: bool) -> Result<(), FatalError> {
    let name = DisplayName::parse("Demo").map_err(|reason| FatalError::Other(reason.to_string()))?;
    let Some((_, key)) = services.operators.create_first(&Caller::Platform, &RequestInfo::command_line(), name).await?
    else {
        return Ok(());
    };
    let key = key.secret.expose_secret();
    let query = r#"mutation { createCustomer(input: {externalCustomerId: \"user-1\", data: {email: \"ada@example.com\"}}) { outcome customer { id email missingFields } } }"#;
    print::text(&format!(
        "This database has no operators, so the operator Demo was created for you. Its API key is shown only once:\n\n    \
         {key}\n\nCreate a first customer:\n\n    \
         curl {url}/graphql -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \
         -d '{{\"query\":\"{query}\"}}'\n\n"
    ))?;
    if cfg!(graphiql) && with_graphiql {
        print::text(&format!("Explore the API in a browser: {url}/graphiql\n\n"))?;
    }
    Ok(())
}

/// Registers the signal handlers. The future completes at the first SIGINT or SIGTERM.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
