use std::process::ExitCode;

use mimalloc::MiMalloc;
use vivamo::cli::Cli;
use vivamo::fatal_error::FatalError;

// Requests make many small allocations, which mimalloc serves faster than the system's allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse_or_exit().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            if matches!(error, FatalError::Usage(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}
