//! What people see: pure functions from events and views to text, and the terminal's live lines.

pub(crate) mod lines;
pub(crate) mod painter;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod rehearsal;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod teardown;

use std::time::Duration;

pub(crate) use deploy::words::count;
use time::{OffsetDateTime, macros::format_description};

/// A duration for people: `12 s`, `2 min 10 s`, `1 h 5 min`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, 0) => format!("{minutes} min"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, 0, _) => format!("{hours} h"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// A duration as a clock shows it: `0:12`, `2:10`, `1:05:00`.
pub(crate) fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// A moment for people, in UTC.
pub(crate) fn moment(at: OffsetDateTime) -> String {
    at.format(format_description!("[year]-[month]-[day] [hour]:[minute]:[second]")).unwrap_or_default()
}

/// The time of day, in UTC.
pub(crate) fn clock_time(at: OffsetDateTime) -> String {
    at.format(format_description!("[hour]:[minute]")).unwrap_or_default()
}

/// A text of several lines whose further lines belong to the first.
pub(crate) fn indented(text: &str, by: usize) -> String {
    text.replace('\n', &format!("\n{}", " ".repeat(by)))
}

/// A text after a label, its further lines below its first; a word that is too long sticks out.
pub(crate) fn wrapped(label: &str, text: &str, width: usize) -> String {
    let indent = label.chars().count();
    let (mut out, mut column) = (label.to_owned(), indent);
    for (index, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if index > 0 && column + 1 + length > width {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else if index > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.trim_end().to_owned()
}

/// Rows as columns, each as wide as its widest cell, two spaces between; the last column is as long as it likes.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let text = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!([text(0), text(59), text(60), text(130)], ["0 s", "59 s", "1 min", "2 min 10 s"]);
        assert_eq!([text(3600), text(3905)], ["1 h", "1 h 5 min"]);
    }
}
