//! One run as it is seen: nothing, lines, JSON, or live lines on a terminal. All are readers of the same messages.

use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::{Message, Record};
use serde_json::{Value, json};

use super::{
    lines::{Lines, Style, Time},
    progress::{Heartbeat, Live},
};
use crate::{
    commands::{Context, FORMAT_VERSION},
    printer::Printer,
};

/// The reader of a run's messages.
pub(crate) struct View<'a> {
    printer: &'a Printer,
    kind: Mutex<Kind>,
}

enum Kind {
    Nothing,
    Json,
    Lines(Lines, Heartbeat),
    Live(Lines, Live),
}

impl<'a> View<'a> {
    /// The view that the options and the terminal want; so many seconds of the world pass in one.
    pub(crate) fn new(context: &'a Context, speed: f64) -> Self {
        let (global, on_terminal) = (&context.global, context.surroundings.messages_on_terminal);
        let lines = || {
            Lines::new(Style {
                time: Time::SinceStart,
                verbose: global.verbose,
                every_step: !on_terminal || global.verbose > 0,
                home: global.home.clone(),
                colours: context.printer.colours_of_messages,
            })
        };
        let kind = match () {
            () if context.printer.is_json() => Kind::Json,
            () if global.quiet => Kind::Nothing,
            () if on_terminal => Kind::Live(lines(), Live::new(speed)),
            () => Kind::Lines(lines(), Heartbeat::new(speed)),
        };
        Self { printer: &context.printer, kind: Mutex::new(kind) }
    }

    /// Shows a message.
    pub(crate) fn see(&self, message: &Message) {
        match &mut *self.kind() {
            Kind::Nothing => {}
            Kind::Json => self.printer.object(&object(message)),
            Kind::Lines(lines, heartbeat) => {
                let lines = lines.message(message);
                heartbeat.see(message, !lines.is_empty());
                lines.iter().for_each(|line| self.printer.say(line));
            }
            Kind::Live(lines, live) => {
                live.see(message);
                lines.message(message).iter().for_each(|line| live.print(&self.printer.typed(line)));
            }
        }
    }

    /// Says something that is not part of the run.
    pub(crate) fn say(&self, text: &str) {
        match &mut *self.kind() {
            Kind::Live(_, live) => live.print(&self.printer.typed(text)),
            _ => self.printer.say(text),
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&self) {
        match &mut *self.kind() {
            Kind::Live(_, live) => live.draw(),
            Kind::Lines(_, heartbeat) => heartbeat.beat().iter().for_each(|line| self.printer.say(line)),
            Kind::Nothing | Kind::Json => {}
        }
    }

    /// The run is over.
    pub(crate) fn end(&self) {
        if let Kind::Live(_, live) = &mut *self.kind() {
            live.end();
        }
    }

    fn kind(&self) -> MutexGuard<'_, Kind> {
        self.kind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message for programs: a record of the journal, or what a running step waits for.
fn object(message: &Message) -> Value {
    match message {
        Message::Recorded(record) => record_object(record),
        Message::Progress { step, waiting_for, evidence, elapsed } => json!({
            "format_version": FORMAT_VERSION,
            "event": "step-waiting",
            "step": step.id,
            "waiting_for": waiting_for,
            "evidence": evidence,
            "elapsed_seconds": elapsed.as_secs_f64(),
        }),
    }
}

/// A record of the journal for programs.
pub(crate) fn record_object(record: &Record) -> Value {
    let mut value = json!({"format_version": FORMAT_VERSION});
    if let (Value::Object(all), Ok(Value::Object(record))) = (&mut value, serde_json::to_value(record)) {
        all.extend(record);
    }
    value
}
