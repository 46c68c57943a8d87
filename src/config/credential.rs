//! Settings that are credentials: they can be read from a file, and no message contains their value.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

/// The names of a setting that is a credential.
#[derive(Clone, Copy)]
pub struct Credential {
    /// The environment variable. The variable of the file has the suffix `_FILE`.
    pub variable: &'static str,
    /// The flag. The flag of the file has the suffix `-file`.
    pub flag: &'static str,
}

impl Display for Credential {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.variable, self.flag)
    }
}

impl Credential {
    /// Checks that the credential is not empty. An empty credential does not count as unset: a template whose value was
    /// not filled in must not disable protection. Quotes around a credential are an error too, because Docker's
    /// `--env-file` does not remove quotes.
    pub(super) fn check(self, value: Option<&SecretString>) -> Result<(), String> {
        value.map_or(Ok(()), |value| check(&self.to_string(), value.expose_secret()))
    }

    /// Reads the credential from its file, if a file is given.
    pub(super) fn read(self, value: &mut Option<SecretString>, file: Option<&Path>) -> Result<(), String> {
        let Some(file) = file else { return Ok(()) };
        let file_setting = format!("{}_FILE ({}-file)", self.variable, self.flag);
        if value.is_some() {
            return Err(format!("{self} and {file_setting} are both set. Unset one of them."));
        }
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|error| format!("Cannot read {}: {error}. Change {file_setting}.", file.display()))?;
        let text = text.trim();
        check(&file_setting, text)?;
        *value = Some(text.into());
        Ok(())
    }

    /// Returns the error for a credential that is not safe.
    pub(super) fn insecure(self, problem: &str) -> Result<(), String> {
        Err(format!("{self} {problem}. Generate one: openssl rand -hex 32"))
    }
}

fn check(setting: &str, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err(format!("{setting} is set but empty. Give it a value, or unset it."));
    }
    if ['"', '\''].iter().any(|quote| value.len() > 1 && value.starts_with(*quote) && value.ends_with(*quote)) {
        return Err(format!("{setting} is in quotes. Remove the quotes, because they count as part of the value."));
    }
    Ok(())
}
