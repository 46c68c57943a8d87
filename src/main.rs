use std::process::ExitCode;

use mimalloc::MiMalloc;
use vivamo::cli::Cli;

// Requests make many small allocations, which mimalloc serves faster than the system's allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse_or_exit().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.message);
            error.exit_code
        }
    }
}
