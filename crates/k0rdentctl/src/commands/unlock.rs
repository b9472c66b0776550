//! `unlock`: takes the environment away from a run that cannot be reached any more.
//!
//! Never needed for a run on this computer that has died: the kernel lets go of its lock. It is for a directory that
//! several computers share, or for a run that hangs.

use engine::{Holder, Journal};

use serde_json::json;

use crate::{
    arguments::Confirmation,
    commands::{Context, FORMAT_VERSION},
    error::CommandError,
};

/// Explains, asks, and fences the other run off.
pub(crate) fn run(context: &Context, confirmation: Confirmation) -> Result<u8, CommandError> {
    let home = &context.global.home;
    let held = Journal::is_held(home);
    let holder = Journal::open_to_read(home)?.map(|journal| journal.holder()).transpose()?.flatten();
    let Some(Holder { user, host, pid, command, since }) = holder.filter(|_| held) else {
        return Ok(said(context, false, "nothing to unlock: no run is active"));
    };
    context.printer.say(&format!(
        "`{command}` by {user}@{host} (process {pid}) is active since {since}.\n\
         If that program still runs, end it instead: it then records where it stands.\n\
         Unlocking starts a new run number in the journal. The other run can record nothing any more, and so starts\n\
         nothing new; what it has already asked of Azure or of a machine goes on, and the next deploy finds it."
    ));
    if !context.confirm(confirmation.yes, "Unlock? [y/N] ", &["y", "yes"])? {
        context.printer.say("nothing was changed");
        return Ok(0);
    }
    Journal::fence(home, &context.surroundings.holder("unlock"))?;
    Ok(said(context, true, "unlocked"))
}

fn said(context: &Context, unlocked: bool, text: &str) -> u8 {
    match context.printer.is_json() {
        true => context.printer.document(&json!({"format_version": FORMAT_VERSION, "unlocked": unlocked})),
        false => context.printer.result(text),
    }
    0
}
