//! `--compat`: what monitors think of deprecated and unstable parts of the interface.

use qapi_runtime::Policy;
use qapi_runtime::policy::{InputPolicy, OutputPolicy};

use super::CliError;
use super::keyval::Keyval;

/// The policy that `text` says. What it does not speak of is accepted, whatever an earlier `--compat` said.
pub fn parse(text: &str) -> Result<Policy, CliError> {
    let mut policy = Policy::default();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        // Parsed by the family's rules for the sake of its error texts.
        Keyval::parse(item, None)?;
        let Some((key, value)) = item.split_once('=') else {
            return Err(CliError::new(format!("Expected '=' after parameter '{item}'")));
        };
        match key {
            "deprecated-input" => policy.deprecated_input = input(key, value)?,
            "unstable-input" => policy.unstable_input = input(key, value)?,
            "deprecated-output" => policy.deprecated_output = output(key, value)?,
            "unstable-output" => policy.unstable_output = output(key, value)?,
            _ => return Err(CliError::new(format!("Parameter '{key}' is unexpected"))),
        }
    }
    Ok(policy)
}

fn input(key: &str, value: &str) -> Result<InputPolicy, CliError> {
    match value {
        "accept" => Ok(InputPolicy::Accept),
        "reject" => Ok(InputPolicy::Reject),
        "crash" => Ok(InputPolicy::Crash),
        _ => Err(refused(key, value)),
    }
}

fn output(key: &str, value: &str) -> Result<OutputPolicy, CliError> {
    match value {
        "accept" => Ok(OutputPolicy::Accept),
        "hide" => Ok(OutputPolicy::Hide),
        _ => Err(refused(key, value)),
    }
}

fn refused(key: &str, value: &str) -> CliError {
    CliError::new(format!("Parameter '{key}' does not accept value '{value}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let policy = parse("deprecated-input=reject,unstable-output=hide").unwrap();
        assert_eq!(policy.deprecated_input, InputPolicy::Reject);
        assert_eq!(policy.unstable_output, OutputPolicy::Hide);
        assert_eq!(policy.unstable_input, InputPolicy::Accept);
        let policy = parse("unstable-input=crash").unwrap();
        assert_eq!(policy.unstable_input, InputPolicy::Crash);
        assert_eq!(policy.deprecated_input, InputPolicy::Accept);
        for (text, message) in [
            (
                "deprecated-input=hide",
                "Parameter 'deprecated-input' does not accept value 'hide'",
            ),
            ("colour=red", "Parameter 'colour' is unexpected"),
            (
                "deprecated-input",
                "Expected '=' after parameter 'deprecated-input'",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().0, message);
        }
    }
}
