//! `events`: what happened, and what happens.

use std::time::Duration;

use engine::{Journal, pause};

use crate::{
    commands::Context,
    error::CommandError,
    views::{
        lines::{Lines, Style, Time},
        run::record_object,
    },
};

/// How often the journal of another process is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// Prints the journal; with `follow`, until no run is active any more.
pub(crate) async fn run(context: &Context, follow: bool) -> Result<u8, CommandError> {
    let home = &context.global.home;
    let Some(journal) = Journal::open_to_read(home)? else {
        context.printer.say(&format!("no events: there is no cluster in {}", home.display()));
        return Ok(0);
    };
    // Everything that happened is wanted, waits included as far as they are recorded.
    let mut lines = Lines::new(Style {
        time: Time::Calendar,
        verbose: 2,
        every_step: true,
        colours: context.printer.colours,
        home: home.clone(),
    });
    let mut seen = 0;
    loop {
        // In this order, so that what the run wrote last is read.
        let active = Journal::is_held(home);
        for record in journal.after(seen)? {
            seen = record.sequence;
            match context.printer.is_json() {
                true => context.printer.object(&record_object(&record)),
                false => lines.record(&record).iter().for_each(|line| context.printer.result(line)),
            }
        }
        if !follow || !active || context.printer.is_cut_off() {
            return Ok(0);
        }
        pause(INTERVAL).await;
    }
}
