//! Files of this computer that are put on machines: too large to be held in memory.

use std::{io::Read, path::Path};

use engine::{Context, Failure};
use sha2::{Digest as _, Sha256};

use crate::{
    deployment::{Deployment, ssh_failure},
    ssh::Remote,
};

/// How much is read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Where a file goes on a machine.
pub(super) struct Place<'a> {
    /// Its path.
    pub path: &'a str,
    /// Where it is until it is whole, in the same file system.
    pub partial: &'a str,
    /// Its mode.
    pub mode: &'a str,
}

/// Looks at the files that the configuration names, before anything is touched.
pub(super) fn are_usable(deployment: &Deployment) -> Result<(), Failure> {
    let k0s = &deployment.config.software.k0s;
    let files = [("software.k0s.binary", &k0s.binary, true), ("software.k0s.airgap_bundle", &k0s.airgap_bundle, false)];
    for (key, file, is_program) in files {
        let Some(file) = file else { continue };
        let trouble = match beginning(deployment, file) {
            Err(error) => error.to_string(),
            Ok(bytes) if bytes.is_empty() => "it is empty".to_owned(),
            Ok(bytes) if is_program && bytes != *b"\x7fELF" => "it is not a program for Linux (ELF)".to_owned(),
            Ok(_) => continue,
        };
        return Err(Failure::refused(format!("{file} cannot be used: {trouble}"))
            .advise(format!("Correct {key} in the configuration.")));
    }
    Ok(())
}

/// The first four bytes.
fn beginning(deployment: &Deployment, file: &str) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    deployment.world.files.open(Path::new(file))?.take(4).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Puts a file on a machine, unless the same is there already.
pub(super) async fn place(
    deployment: &Deployment,
    context: &Context<'_>,
    remote: &Remote,
    file: &str,
    place: &Place<'_>,
) -> Result<(), Failure> {
    let Place { path, partial, mode } = place;
    let node = &remote.target().node;
    let deadline = context.step().deadline;
    let digest = digest(deployment, file).await?;
    let there = remote.try_run(&format!("sha256sum {path}"), None, deadline).await.map_err(ssh_failure)?;
    if there.code == 0 && there.stdout.starts_with(&digest) {
        return Ok(());
    }
    let intent = context.intend(format!("upload {file} to {node}")).await?;
    context.waiting(format!("{path} is on {node}"), format!("{file} is uploaded"));
    let open = || deployment.world.files.open(Path::new(file));
    let arrived = remote.upload_from(&intent, partial, open, mode, "root", deadline).await.map_err(ssh_failure)?;
    if arrived != digest {
        deployment.digests.lock().await.remove(file);
        return Err(Failure::new(format!(
            "{file} arrived on {node} as something else: it has SHA-256 {digest}, and {arrived} there"
        ))
        .advise("If the file was being changed, run `k0rdentctl deploy` again."));
    }
    let directory = path.rsplit_once('/').map_or("/", |(directory, _)| directory);
    let command = format!("sudo mkdir -p {directory} && sudo mv -f {partial} {path}");
    remote.run(&command).await.map_err(ssh_failure)?;
    context.effected(intent).await
}

/// The SHA-256 of a file, made once in a run.
pub(super) async fn digest(deployment: &Deployment, file: &str) -> Result<String, Failure> {
    let mut digests = deployment.digests.lock().await;
    if let Some(digest) = digests.get(file) {
        return Ok(digest.clone());
    }
    let unreadable = |error: std::io::Error| Failure::refused(format!("{file} cannot be read: {error}"));
    let mut source = deployment.world.files.open(Path::new(file)).map_err(unreadable)?;
    let (mut hash, mut piece) = (Sha256::new(), vec![0; PIECE_BYTES]);
    loop {
        let count = source.read(&mut piece).map_err(unreadable)?;
        if count == 0 {
            break;
        }
        hash.update(&piece[..count]);
        // Others are served in between.
        tokio::task::yield_now().await;
    }
    let digest = hex::encode(hash.finalize());
    digests.insert(file.to_owned(), digest.clone());
    Ok(digest)
}
