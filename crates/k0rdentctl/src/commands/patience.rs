//! A line for people at a terminal while something takes longer than they expect.

use std::{pin::pin, time::Duration};

use engine::pause;
use tokio::time::Instant;

use crate::{commands::Context, printer::draw_messages, settings::terminal_width, views::painter::Painter};

/// After how long people wonder.
const WONDER: Duration = Duration::from_secs(1);

/// Waits for something; says for what, and since when, if that takes more than a moment and somebody watches.
pub(crate) async fn patiently<T>(context: &Context, what: &str, something: impl Future<Output = T>) -> T {
    let mut something = pin!(something);
    if !context.surroundings.messages_on_terminal || context.printer.is_quiet() {
        return something.await;
    }
    let (began, mut painter) = (Instant::now(), Painter::default());
    loop {
        tokio::select! {
            biased;
            done = &mut something => {
                draw_messages(&painter.erase(terminal_width()));
                return done;
            }
            () = pause(WONDER) => {
                let line = format!("{what} ({} s)", began.elapsed().as_secs());
                let columns = terminal_width();
                let short = line.chars().take(columns.saturating_sub(1)).collect();
                draw_messages(&painter.draw(vec![short], columns));
            }
        }
    }
}
