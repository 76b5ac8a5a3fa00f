use std::{
    fs,
    io::{self, IsTerminal, Read},
    path::Path,
};

use clustering_cli::Failure;

/// Reads the password from the first line of a file, or of the standard input for `-`.
pub(super) fn read(file: &Path) -> Result<String, Failure> {
    let text = match file.as_os_str() == "-" {
        true => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map(|_| text)
        }
        false => fs::read_to_string(file),
    };
    let failure = |reason: String| Failure::unknown(format!("--password-file {}: {reason}", file.display()));
    let text = text.map_err(|error| failure(error.to_string()))?;
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(password.to_owned()),
        _ => Err(failure("the first line is empty".to_owned())),
    }
}

/// Asks for the password on the terminal.
pub(super) fn ask(user: &str) -> Result<String, Failure> {
    let hint = "set ETCDCTL_PASSWORD or --password-file, or run the command on a terminal to be asked for it";
    if !io::stdin().is_terminal() {
        return Err(Failure::unknown(format!("the user {user} needs a password")).hint(hint));
    }
    rpassword::prompt_password(format!("Password of {user}: "))
        .map_err(|error| Failure::unknown(format!("cannot read the password of {user}: {error}")).hint(hint))
}
