//! head, tail and wc. What they print is that of GNU coreutils.

use super::{
    Outcome,
    coreutils::{Call, complain, has, value},
};
use crate::machine::Machine;

/// `head` and `tail`: lines or bytes, also counted from the other end (`head -n -1`, `tail -n +2`) and in the old way
/// (`head -1`).
pub(super) fn part(machine: &Machine, name: &str, call: &Call<'_>) -> Outcome {
    let (options, operands) = call.options("nc");
    let path = operands.first().map_or("-", String::as_str);
    let bytes = match call.read(machine, path) {
        Ok(bytes) => bytes,
        Err(error) => return Outcome::fails(1, format!("{name}: cannot open '{path}' for reading: {error}")),
    };
    let pieces: Vec<&[u8]> = match has(&options, 'c') {
        true => bytes.chunks(1).collect(),
        false => bytes.split_inclusive(|byte| *byte == b'\n').collect(),
    };
    let digits: String = options.iter().map(|(letter, _)| *letter).filter(char::is_ascii_digit).collect();
    let asked = value(&options, 'c').or_else(|| value(&options, 'n')).unwrap_or(&digits);
    let (count, all) = (asked.trim_start_matches(['-', '+']).parse().unwrap_or(10_usize), pieces.len());
    let range = match (name, asked.chars().next()) {
        ("head", Some('-')) => 0..all.saturating_sub(count),
        ("head", _) => 0..count.min(all),
        (_, Some('+')) => count.saturating_sub(1).min(all)..all,
        _ => all.saturating_sub(count)..all,
    };
    Outcome::says(pieces[range].concat())
}

/// `wc`: lines, words and bytes, of which some can be asked for.
pub(super) fn wc(machine: &Machine, call: &Call<'_>) -> Outcome {
    let (options, operands) = call.options("");
    let columns: Vec<usize> =
        "lwc".char_indices().filter(|(_, letter)| has(&options, *letter)).map(|(at, _)| at).collect();
    let columns = if columns.is_empty() { vec![0, 1, 2] } else { columns };
    let from_input = operands.is_empty();
    let paths = if from_input { vec!["-".to_owned()] } else { operands };
    let (mut outcome, mut rows, mut total) = (Outcome::default(), Vec::new(), [0; 3]);
    for path in &paths {
        match call.read(machine, path) {
            Ok(bytes) => {
                let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
                let counted = [lines, String::from_utf8_lossy(bytes).split_whitespace().count(), bytes.len()];
                total.iter_mut().zip(counted).for_each(|(total, counted)| *total += counted);
                rows.push((counted, path.as_str()));
            }
            Err(error) => complain(&mut outcome, 1, format!("wc: {path}: {error}")),
        }
    }
    if paths.len() > 1 {
        rows.push((total, "total"));
    }
    // As wide as the largest number can be; what is no file may become anything.
    let width = match (columns.len(), paths.len()) {
        (1, 1) => 1,
        _ if from_input => 7,
        _ => total[2].to_string().len(),
    };
    for (counted, path) in rows {
        let numbers: Vec<String> = columns.iter().map(|&column| format!("{:>width$}", counted[column])).collect();
        let name = if from_input { String::new() } else { format!(" {path}") };
        outcome.stdout.extend(format!("{}{name}\n", numbers.join(" ")).bytes());
    }
    outcome
}
