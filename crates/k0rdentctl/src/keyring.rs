//! What the one who runs this lends to log in with: passphrases, from a variable or asked on the terminal, and their
//! ssh-agent.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use deploy::{
    seam::{Keyring, Stream, local_socket},
    secret::Secret,
};

use crate::{printer::draw_messages, settings::Surroundings};

/// The passphrase of whatever key needs one, where nobody can be asked.
const PASSPHRASE: &str = "K0RDENT_SSH_PASSPHRASE";

/// The keyring of a person at a terminal, or of a pipeline.
pub(crate) struct OperatorKeyring {
    passphrase: Option<Secret>,
    agent: Option<PathBuf>,
    is_someone_there: bool,
    /// What was said before: nobody is asked twice for the same.
    said: Mutex<BTreeMap<PathBuf, Secret>>,
}

impl OperatorKeyring {
    /// As the surroundings say.
    pub(crate) fn of(surroundings: &Surroundings) -> Self {
        Self {
            passphrase: surroundings.variable(PASSPHRASE).map(Secret::new),
            agent: surroundings.variable("SSH_AUTH_SOCK").map(PathBuf::from),
            is_someone_there: surroundings.messages_on_terminal,
            said: Mutex::default(),
        }
    }
}

#[async_trait]
impl Keyring for OperatorKeyring {
    fn passphrase(&self, file: &Path, attempt: u32) -> Option<Secret> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let known = said.get(file).or(self.passphrase.as_ref()).filter(|_| attempt == 0);
        if let Some(known) = known {
            return Some(known.clone());
        }
        if !self.is_someone_there {
            return None;
        }
        let again = if attempt > 0 { "That is not it. " } else { "" };
        draw_messages(&format!("{again}Passphrase of {}: ", file.display()));
        // From the terminal itself, without echo, whatever standard input is.
        let answer = rpassword::read_password().ok().filter(|answer| !answer.is_empty()).map(Secret::new)?;
        said.insert(file.to_owned(), answer.clone());
        Some(answer)
    }

    async fn agent(&self) -> io::Result<Option<Stream>> {
        match &self.agent {
            Some(socket) => local_socket(socket).await.map(Some),
            None => Ok(None),
        }
    }
}
