use std::process::ExitCode;

use mimalloc::MiMalloc;
use vivamo::cli::Cli;

/// Requests are many small allocations.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::read().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("vivamo: {words}");
            ExitCode::FAILURE
        }
    }
}
