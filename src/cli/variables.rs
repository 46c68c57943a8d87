//! Environment variables. An empty variable counts as unset, unless the variable is a credential. Commands that use the
//! database reject an unknown variable that starts with `VIVAMO_`, so that a misspelt setting is not silently ignored.
//! Variables of the build, the tests, Kubernetes and Docker are allowed.

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command};

const PREFIX: &str = "VIVAMO_";

/// Makes clap ignore variables that are set but empty. A deployment template whose value was not filled in sets such a
/// variable.
///
/// Does not make clap ignore empty credentials, because `config` must reject them. Credentials are the arguments with a
/// hidden value and without a default.
pub fn ignore_empty(command: Command) -> Command {
    // The URL of the database may contain a password, so its value is hidden too. But it has a default, so it does not
    // count as a credential.
    let is_credential = |arg: &Arg| arg.is_hide_env_values_set() && arg.get_default_values().is_empty();
    let is_empty = |arg: &Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.is_empty()) && !is_credential(arg)
    };
    command.mut_args(|arg| if is_empty(&arg) { arg.env(Resettable::Reset) } else { arg }).mut_subcommands(ignore_empty)
}

/// Returns the names of the variables that the arguments of a command and its subcommands read.
pub fn names(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_string_lossy().into_owned()));
    own.chain(command.get_subcommands().flat_map(names)).collect()
}

/// Adds a hint to the error if an invalid value comes from a variable. The hint names the variable, because clap names
/// only the flag.
pub fn name_source(command: &Command, error: &mut clap::Error) {
    let (Some(ContextValue::String(flag)), Some(ContextValue::String(value))) =
        (error.get(ContextKind::InvalidArg), error.get(ContextKind::InvalidValue))
    else {
        return;
    };
    let is_source = |arg: &&Arg| {
        let variable = arg.get_env().and_then(|name| std::env::var(name).ok());
        let has_value = |text: String| text == *value || text.split(',').any(|part| part == value);
        arg.get_long().is_some_and(|long| flag.starts_with(&format!("--{long} "))) && variable.is_some_and(has_value)
    };
    let mut arguments = std::iter::once(command).chain(command.get_subcommands()).flat_map(Command::get_arguments);
    if let Some(variable) = arguments.find(is_source).and_then(Arg::get_env) {
        let tip = format!("the value comes from {}", variable.display());
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
}

/// Returns an error that names each unknown variable. A variable is unknown if it is not empty, starts with `VIVAMO_`,
/// is not in `known`, and is not one of the variables of `is_not_a_setting`.
pub fn reject_unknown(known: &[String], variables: impl IntoIterator<Item = (String, String)>) -> Result<(), String> {
    let mut messages: Vec<String> = variables
        .into_iter()
        .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty() && !known.contains(name))
        .filter(|(name, value)| !is_not_a_setting(name, value))
        .map(|(name, _)| match nearest(&name, known) {
            Some(nearest) => format!("{name} is not a setting. Did you mean {nearest}?"),
            None => format!("{name} is not a setting."),
        })
        .collect();
    if messages.is_empty() {
        return Ok(());
    }
    messages.sort();
    messages.push("Rename or unset each of these variables. `vivamo serve --help` lists all settings.".to_owned());
    Err(messages.join("\n"))
}

/// Returns true for variables of the build and the tests, and for variables in which Kubernetes and Docker describe a
/// service. For a service named `vivamo`, Kubernetes and Docker set VIVAMO_SERVICE_HOST, VIVAMO_SERVICE_PORT,
/// VIVAMO_PORT=tcp://10.0.0.1:80, VIVAMO_PORT_80_TCP_ADDR, and so on.
fn is_not_a_setting(name: &str, value: &str) -> bool {
    ["VIVAMO_BUILD_", "VIVAMO_TEST_", "VIVAMO_VERSION"].iter().any(|start| name.starts_with(start))
        || ["_SERVICE_HOST", "_SERVICE_PORT", "_TCP", "_UDP"].iter().any(|mark| name.contains(mark))
        || (name.ends_with("_PORT") && value.contains("://"))
}

fn nearest<'k>(name: &str, known: &'k [String]) -> Option<&'k String> {
    const MIN_SIMILARITY: f64 = 0.75;
    let name = name.strip_prefix(PREFIX)?;
    let similarities =
        known.iter().filter_map(|known| Some((strsim::jaro_winkler(name, known.strip_prefix(PREFIX)?), known)));
    let (similarity, nearest) = similarities.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (similarity >= MIN_SIMILARITY).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(variables: &[(&str, &str)]) -> Option<String> {
        let known =
            ["DATABASE_URL", "VIVAMO_LISTEN", "VIVAMO_METRICS", "VIVAMO_COST_PER_SECOND", "VIVAMO_CORS_ORIGINS"]
                .map(str::to_owned);
        let variables = variables.iter().map(|(name, value)| (str::to_string(name), str::to_string(value)));
        reject_unknown(&known, variables).err()
    }

    #[test]
    fn the_nearest_setting_is_suggested() {
        for (name, nearest) in [
            ("VIVAMO_LISTEN_ADDRESS", "VIVAMO_LISTEN"),
            ("VIVAMO_METRIC", "VIVAMO_METRICS"),
            ("VIVAMO_COST_PER_SEC", "VIVAMO_COST_PER_SECOND"),
            ("VIVAMO_ORIGINS", "VIVAMO_CORS_ORIGINS"),
        ] {
            let message = refused(&[(name, "1")]).unwrap();
            assert!(message.starts_with(&format!("{name} is not a setting. Did you mean {nearest}?\n")), "{message}");
        }
        let message = refused(&[("VIVAMO_X", "1"), ("VIVAMO_Q", "1")]).unwrap();
        assert!(message.starts_with("VIVAMO_Q is not a setting.\nVIVAMO_X is not a setting.\n"), "{message}");
    }

    #[test]
    fn variables_of_others_are_ignored() {
        for variable in [
            ("PATH", "/bin"),
            ("VIVAMO_LISTEN", "127.0.0.1:0"),
            ("VIVAMO_RATE_LIMIT", ""),
            ("VIVAMO_TEST_POSTGRES", "postgres://127.0.0.1"),
            ("VIVAMO_BUILD_WEB", "1"),
            ("VIVAMO_SERVICE_HOST", "10.0.0.1"),
            ("VIVAMO_SERVICE_PORT_HTTP", "80"),
            ("VIVAMO_PORT", "tcp://10.0.0.1:80"),
            ("VIVAMO_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("VIVAMO_POSTGRES_PORT_5432_TCP_ADDR", "10.0.0.2"),
        ] {
            assert_eq!(refused(&[variable]), None);
        }
        assert!(refused(&[("VIVAMO_PORT", "8000")]).is_some());
    }
}
