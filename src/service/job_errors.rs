//! Logs the errors of background jobs that run every few seconds.

use crate::error::{Error, ErrorCode};

/// The errors of a job. An error that lasts is logged once.
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
                let error = error.into();
                // A timeout may concern only the statements of this job, so that no request logs it.
                let is_unavailable = matches!(error, Error::Failed { code: ErrorCode::Unavailable, .. });
                match self.new_cause(&error) {
                    Some(cause) if is_unavailable => {
                        tracing::warn!(
                            job = self.job,
                            cause,
                            "a background job cannot use the database: it will try again"
                        );
                    }
                    Some(cause) => {
                        tracing::error!(job = self.job, cause, "a background job failed: it will try again");
                    }
                    None => {}
                }
                None
            }
        }
    }

    /// Returns the cause of the error, or `None` if the last error had the same cause.
    fn new_cause(&mut self, error: &Error) -> Option<String> {
        let cause = error.describe();
        let last = self.logged.replace(cause.clone());
        (last.as_ref() != Some(&cause)).then_some(cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_lasts_is_logged_once() {
        let mut errors = JobErrors::new("test");
        let failed = |cause: &str| {
            let (code, cause) = (ErrorCode::Internal, cause.to_owned());
            Error::Failed { code, cause, is_logged: false }
        };
        let causes: Vec<_> =
            ["a", "a", "b", "a"].into_iter().filter_map(|cause| errors.new_cause(&failed(cause))).collect();
        assert_eq!(causes, ["a", "b", "a"]);
        // After a success, the same error is a new one.
        assert_eq!(errors.log(Ok::<_, Error>(1)), Some(1));
        assert!(errors.new_cause(&failed("a")).is_some());
        assert_eq!(errors.log(Err::<(), _>(failed("a"))), None);
    }
}
