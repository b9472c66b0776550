//! Lines at the end of a terminal that are drawn again and again, below others that stay. Pure: from lines to what has to
//! be written.
//!
//! Every line that is drawn ends with a new line, so that what the terminal shows by itself (`^C`) stands below and goes
//! with the next drawing. Terminals that become narrower break lines that are too long for them; how many rows they have
//! now is computed from what was drawn.

use crate::printer::harmless;

/// Up one row; and from here to the end of the screen, nothing.
const UP: &str = "\x1b[1A";
const CLEAR: &str = "\r\x1b[J";

/// What is drawn at the moment.
#[derive(Default)]
pub(crate) struct Painter {
    /// The width of each line.
    drawn: Vec<usize>,
    lines: Vec<String>,
}

impl Painter {
    /// What brings these lines to a terminal of so many columns, in the place of those before; nothing if they are there.
    pub(crate) fn draw(&mut self, lines: Vec<String>, columns: usize) -> String {
        let lines: Vec<String> = lines.iter().map(|line| harmless(line).into_owned()).collect();
        if lines == self.lines {
            return String::new();
        }
        let text = self.erase(columns) + &text(&lines);
        self.drawn = lines.iter().map(|line| line.chars().count()).collect();
        self.lines = lines;
        text
    }

    /// What brings a line there that stays, above those that are drawn again.
    pub(crate) fn print(&mut self, line: &str, columns: usize) -> String {
        let lines = std::mem::take(&mut self.lines);
        let text = format!("{}{}\n{}", self.erase(columns), harmless(line), text(&lines));
        self.drawn = lines.iter().map(|line| line.chars().count()).collect();
        self.lines = lines;
        text
    }

    /// What takes everything away that was drawn.
    pub(crate) fn erase(&mut self, columns: usize) -> String {
        let rows: usize = self.drawn.iter().map(|width| width.div_ceil(columns.max(1)).max(1)).sum();
        let is_empty = self.drawn.is_empty();
        self.drawn.clear();
        self.lines.clear();
        if is_empty { String::new() } else { UP.repeat(rows) + CLEAR }
    }
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use avt::Terminal;

    use super::*;

    /// A terminal that works as real ones do.
    fn terminal(columns: usize, rows: usize) -> Terminal {
        Terminal::with_scrollback(columns, rows, Some(1000)).expect("a size")
    }

    /// As the terminal's driver passes it on.
    fn feed(terminal: &mut Terminal, text: &str) {
        terminal.feed(text.replace('\n', "\r\n").as_str());
    }

    fn shown(terminal: &Terminal) -> Vec<String> {
        let lines: Vec<String> = terminal.screen().text().iter().map(|line| line.trim_end().to_owned()).collect();
        let last = lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
        lines[..last].to_vec()
    }

    #[test]
    fn what_is_drawn_is_replaced_and_what_is_printed_stays() {
        let (mut terminal, mut painter) = (terminal(20, 6), Painter::default());
        for second in 0..20 {
            feed(&mut terminal, &painter.draw(vec![format!("{second} s"), "until it is there".into()], 20));
            if second % 5 == 0 {
                feed(&mut terminal, &painter.print(&format!("{second} is done"), 20));
            }
        }
        let done = ["0 is done", "5 is done", "10 is done", "15 is done"];
        assert_eq!(shown(&terminal), [&done[..], &["19 s", "until it is there"]].concat());
        feed(&mut terminal, &painter.erase(20));
        assert_eq!(shown(&terminal), done);
    }

    #[test]
    fn what_the_terminal_shows_itself_goes_with_the_next_drawing() {
        let (mut terminal, mut painter) = (terminal(80, 24), Painter::default());
        feed(&mut terminal, &painter.draw(vec!["3 s".into()], 80));
        feed(&mut terminal, "^C");
        feed(&mut terminal, &painter.print("stopping", 80));
        feed(&mut terminal, &painter.draw(vec!["4 s".into()], 80));
        feed(&mut terminal, &painter.erase(80));
        assert_eq!(shown(&terminal), ["stopping"]);
    }

    #[test]
    fn a_terminal_that_changes_its_size_keeps_no_ghosts() {
        // Where the terminal is full and where it is not: rows that it pushes out of sight cannot be taken away.
        for (before, sizes) in [(1, [140, 80, 140, 100, 80]), (50, [140, 80, 60, 100, 50])] {
            let (mut terminal, mut painter) = (terminal(140, 40), Painter::default());
            let kept: Vec<String> = (0..before).map(|line| format!("line {line}")).collect();
            kept.iter().for_each(|line| feed(&mut terminal, &format!("{line}\n")));
            for (step, columns) in sizes.into_iter().enumerate() {
                terminal.resize(columns, 40);
                let lines = (0..3).map(|row| format!("{step}{row}{}", "x".repeat(columns.min(80) - 3))).collect();
                feed(&mut terminal, &painter.draw(lines, columns));
            }
            terminal.resize(80, 24);
            feed(&mut terminal, &painter.print("last", 80));
            feed(&mut terminal, &painter.erase(80));
            assert_eq!(shown(&terminal), [kept, vec!["last".to_owned()]].concat());
        }
    }
}
