use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use mimalloc::MiMalloc;
use tokio::runtime::Builder;
use vivamo::cli::Cli;
use vivamo::fatal_error::FatalError;

// Requests make many small allocations, which mimalloc serves faster than the system's allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The longest time to wait for blocking threads at the end of the program. The lookup of a host name can block its
/// thread for 30 seconds, although nobody waits for the result any more.
const BLOCKING_THREADS_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match run(Cli::parse_or_exit().run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not `eprintln`, which panics if standard error is a closed pipe.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            if matches!(error, FatalError::Usage(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Runs a command on a new runtime, and then stops the runtime. The value that the command returns is dropped after the
/// runtime has stopped.
fn run<T>(command: impl Future<Output = Result<T, FatalError>>) -> Result<(), FatalError> {
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        FatalError::Other(format!("Cannot start threads: {error}. Check the limits of the system."))
    })?;
    let result = runtime.block_on(command);
    runtime.shutdown_timeout(BLOCKING_THREADS_TIMEOUT);
    result.map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use tokio::sync::oneshot;
    use tokio::task::spawn_blocking;

    use super::*;

    #[test]
    fn a_blocking_thread_delays_the_end_only_briefly() {
        let (unblock, blocked) = mpsc::channel::<()>();
        let started = Instant::now();
        let result = run(async {
            let (begin, begun) = oneshot::channel();
            spawn_blocking(move || (begin.send(()), blocked.recv_timeout(Duration::from_secs(60))));
            begun.await.map_err(|error| FatalError::Other(error.to_string()))
        });
        assert!(result.is_ok() && started.elapsed() < Duration::from_secs(30));
        drop(unblock);
    }
}
