//! What the surroundings say: environment variables, the command line, the terminal, the user. The only reader of them.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET` | an application with a secret |
//! | `AZURE_FEDERATED_TOKEN_FILE` | an application that proves itself with this file's token |
//! | `K0RDENT_MANAGED_IDENTITY` | 1: the identity of the Azure machine that this runs on |
//! | `AZURE_SUBSCRIPTION_ID` | the subscription, unless the configuration names one |
//! | `AZURE_AUTHORITY_HOST` | where to log in, for other clouds than the public one |
//! | `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` | the proxy to Azure and the internet, and what is reached without it; in lower case too |
//! | `SSL_CERT_FILE`, `SSL_CERT_DIR` | whom HTTPS to Azure and the internet trusts, instead of the public certificate authorities |
//! | `K0RDENT_OPERATOR_ADDRESS` | the address from which SSH is allowed, instead of asking for it |
//! | `SSH_AUTH_SOCK` | the ssh-agent, for keys that the configuration names and the agent holds |
//! | `K0RDENT_SSH_PASSPHRASE` | the passphrase of the private keys that the configuration names |
//! | `K0RDENTCTL_TWIN` | the directory of the twin to talk to, as --twin names it |
//! | `NO_COLOR`, `COLUMNS`, `TERM` | as everywhere |

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::IsTerminal as _,
    path::{Path, PathBuf},
};

use engine::{Clock as _, Holder, SystemClock};

/// The width of help and tables where nobody says.
const USUAL_WIDTH: usize = 100;
/// The height of a terminal that does not say.
const USUAL_HEIGHT: usize = 24;

/// Everything that this program reads from its surroundings.
pub(crate) struct Surroundings {
    variables: BTreeMap<String, String>,
    /// The command line, the program's name first.
    pub(crate) arguments: Vec<OsString>,
    /// Whether somebody is there to answer a question.
    pub(crate) interactive: bool,
    /// Whether messages go to a terminal.
    pub(crate) messages_on_terminal: bool,
    /// The width for text.
    pub(crate) width: usize,
}

impl Surroundings {
    /// Reads them.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the surroundings")]
    pub(crate) fn read() -> Self {
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        let variables: BTreeMap<String, String> = std::env::vars_os().filter_map(text).collect();
        let columns = variables.get("COLUMNS").and_then(|columns| columns.parse().ok());
        let (width, messages_on_terminal) = (terminal_size().map(|(width, _)| width), std::io::stderr().is_terminal());
        Self {
            arguments: std::env::args_os().collect(),
            interactive: std::io::stdin().is_terminal() && messages_on_terminal,
            messages_on_terminal,
            width: width.or(columns).unwrap_or(USUAL_WIDTH),
            variables,
        }
    }

    /// An environment variable; an empty one is as good as none.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A program on the PATH.
    pub(crate) fn find_program(&self, name: &str) -> Option<PathBuf> {
        let path = self.variable("PATH")?;
        path.split(':').map(|directory| Path::new(directory).join(name)).find(|file| file.is_file())
    }

    /// Who runs this command, since now.
    pub(crate) fn holder(&self, command: &str) -> Holder {
        Holder {
            user: self.user(),
            host: self.host(),
            pid: std::process::id(),
            command: command.to_owned(),
            since: SystemClock.utc(),
        }
    }

    /// Who owns what is created: the address that the user's git configuration names, else user and computer.
    pub(crate) fn owner(&self) -> String {
        let home = self.variable("HOME").map(|home| Path::new(home).join(".gitconfig"));
        let configured = home.and_then(|file| fs_err::read_to_string(file).ok()).and_then(|text| email(&text));
        configured.unwrap_or_else(|| format!("{}@{}", self.user(), self.host()))
    }

    fn user(&self) -> String {
        self.variable("USER").or(self.variable("LOGNAME")).unwrap_or("unknown").to_owned()
    }

    fn host(&self) -> String {
        // Linux documentation: proc(5).
        let kernel = fs_err::read_to_string("/proc/sys/kernel/hostname").ok();
        let name = kernel.or_else(|| self.variable("HOSTNAME").map(str::to_owned)).unwrap_or_default();
        if name.trim().is_empty() { "unknown".to_owned() } else { name.trim().to_owned() }
    }
}

/// Columns and rows of the terminal, if there is one.
fn terminal_size() -> Option<(usize, usize)> {
    terminal_size::terminal_size().map(|(width, height)| (usize::from(width.0), usize::from(height.0)))
}

/// How many columns the terminal has now.
pub(crate) fn terminal_width() -> usize {
    terminal_size().map_or(USUAL_WIDTH, |(width, _)| width)
}

/// How many rows the terminal has now.
pub(crate) fn terminal_height() -> usize {
    terminal_size().map_or(USUAL_HEIGHT, |(_, height)| height)
}

/// `email` of the section `user` (git documentation: git-config).
fn email(git_config: &str) -> Option<String> {
    let mut in_user = false;
    git_config.lines().map(str::trim).find_map(|line| {
        if line.starts_with('[') {
            in_user = line.eq_ignore_ascii_case("[user]");
        }
        let (key, value) = line.split_once('=')?;
        let found = in_user && key.trim().eq_ignore_ascii_case("email");
        found.then(|| value.trim().trim_matches('"').to_owned()).filter(|value| !value.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_comes_from_the_git_configuration() {
        let text = "[core]\n\temail = no@example.com\n[user]\n\tname = Ada\n\tEmail = \"ada@example.com\"\n";
        assert_eq!(email(text).as_deref(), Some("ada@example.com"));
        assert_eq!(email("[user]\nname = Ada\n"), None);
    }
}
