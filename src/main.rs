use std::process::ExitCode;

use clap::Parser;
use vivamo::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("vivamo: {words}");
            ExitCode::FAILURE
        }
    }
}
