//! `test` and `[`.

use super::{Outcome, coreutils::Call};
use crate::machine::{
    Machine,
    files::{EXECUTE, READ, WRITE},
};

/// Decides: 0 true, 1 false, 2 not understood.
pub(super) fn run(machine: &Machine, name: &str, call: &Call<'_>) -> Outcome {
    let mut words: Vec<&str> = call.arguments.iter().map(String::as_str).collect();
    if name == "[" && words.pop() != Some("]") {
        return Outcome::fails(2, "sh: 1: [: missing ]");
    }
    match truth(machine, call, &words) {
        Some(truth) => Outcome::code(u32::from(!truth)),
        None => Outcome::fails(2, format!("sh: 1: {name}: unexpected operator")),
    }
}

fn truth(machine: &Machine, call: &Call<'_>, words: &[&str]) -> Option<bool> {
    let number = |text: &str| text.trim().parse::<i64>().ok();
    match words {
        [] => Some(false),
        ["!", rest @ ..] => truth(machine, call, rest).map(|truth| !truth),
        [one] => Some(!one.is_empty()),
        ["-n", text] => Some(!text.is_empty()),
        ["-z", text] => Some(text.is_empty()),
        [operator, path] => file_test(machine, call, operator, path),
        [left, "=" | "==", right] => Some(left == right),
        [left, "!=", right] => Some(left != right),
        [left, operator, right] => {
            let order = number(left)?.cmp(&number(right)?);
            match *operator {
                "-eq" => Some(order.is_eq()),
                "-ne" => Some(order.is_ne()),
                "-lt" => Some(order.is_lt()),
                "-le" => Some(order.is_le()),
                "-gt" => Some(order.is_gt()),
                "-ge" => Some(order.is_ge()),
                _ => None,
            }
        }
        _ => None,
    }
}

fn file_test(machine: &Machine, call: &Call<'_>, operator: &str, path: &str) -> Option<bool> {
    let path = call.path(path);
    let node = machine.files.look(&path, call.who).ok();
    Some(match operator {
        "-e" => node.is_some(),
        "-f" => node.is_some_and(|node| !node.is_directory()),
        "-d" => node.is_some_and(|node| node.is_directory()),
        "-s" => node.and_then(|node| node.content.as_ref()).is_some_and(|content| !content.is_empty()),
        "-r" => machine.files.allows(&path, call.who, READ),
        "-w" => machine.files.allows(&path, call.who, WRITE),
        "-x" => machine.files.allows(&path, call.who, EXECUTE),
        "-L" | "-h" => false,
        _ => return None,
    })
}
