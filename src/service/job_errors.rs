//! Logs the errors of background jobs that run every few seconds.

use crate::error::{Error, ErrorCode};
use crate::failure::error_message;

/// The errors of a job. An error that lasts is logged once. An outage of the database is not logged, because the
/// requests and the health checks log it.
pub struct JobErrors {
    job: &'static str,
    /// The cause of the last error that was logged. `None` if the job has succeeded since.
    logged: Option<String>,
}

impl JobErrors {
    /// `job` names the job in the log.
    pub fn new(job: &'static str) -> Self {
        Self { job, logged: None }
    }

    /// Returns the value of a run of the job. If the run failed, logs the error and returns `None`.
    pub fn log<T>(&mut self, result: Result<T, impl Into<Error>>) -> Option<T> {
        match result {
            Ok(value) => {
                self.logged = None;
                Some(value)
            }
            Err(error) => {
                if let Some(cause) = self.new_cause(error.into()) {
                    tracing::error!(job = self.job, cause, "a background job failed: it will try again");
                }
                None
            }
        }
    }

    /// Returns the cause of the error, or `None` if the error must not be logged.
    fn new_cause(&mut self, error: Error) -> Option<String> {
        if matches!(error, Error::Failed { code: ErrorCode::Unavailable, .. }) {
            return None;
        }
        let cause = error_message(error);
        let last = self.logged.replace(cause.clone());
        (last.as_ref() != Some(&cause)).then_some(cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_lasts_is_logged_once_and_an_outage_is_not_logged() {
        let mut errors = JobErrors::new("test");
        let failed = |code, cause: &str| Error::Failed { code, cause: cause.to_owned(), is_logged: false };
        let mut causes = Vec::new();
        for error in ["a", "outage", "a", "b", "a"] {
            let code = if error == "outage" { ErrorCode::Unavailable } else { ErrorCode::Internal };
            causes.extend(errors.new_cause(failed(code, error)));
        }
        assert_eq!(causes, ["a", "b", "a"].map(|cause| format!("Database error: {cause}")));
        // After a success, the same error is a new one.
        assert_eq!(errors.log(Ok::<_, Error>(1)), Some(1));
        assert!(errors.new_cause(failed(ErrorCode::Internal, "a")).is_some());
        assert_eq!(errors.log(Err::<(), _>(failed(ErrorCode::Internal, "a"))), None);
    }
}
