//! What people type first on a machine: date, free, ip, ps, uptime. The form is that of coreutils, procps and iproute2 on
//! Debian 12 (observed); what a machine has to do, and what of its memory is in use, is a guess.

use time::{Duration, OffsetDateTime};

use super::Outcome;
use crate::{
    World, azure,
    machine::{Machine, files::Who},
};

/// The programs that [`run`] knows.
pub(super) const KNOWN: [&str; 5] = ["date", "free", "ip", "ps", "uptime"];

/// Runs one of [`KNOWN`].
pub(super) fn run(world: &World, key: &str, who: &Who, name: &str, arguments: &[String]) -> Outcome {
    let Some(machine) = world.machines.get(key) else { return Outcome::code(1) };
    let now = world.utc() + Duration::seconds(machine.clock_ahead_seconds);
    let up = Duration::seconds((world.now.saturating_sub(machine.booted_at)).as_secs().cast_signed());
    match name {
        "date" => date(now, arguments),
        "free" => free(memory_kib(machine), arguments),
        "ip" => ip(machine, arguments),
        "ps" => ps(machine, who, arguments),
        _ => uptime(now, up, arguments),
    }
}

/// Memory in KiB: what the host says, or what Azure sells with the size.
fn memory_kib(machine: &Machine) -> u64 {
    let said = machine.files.text("/proc/meminfo").and_then(|text| {
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
    });
    // The kernel keeps a little for itself.
    said.unwrap_or_else(|| azure::memory_gigabytes(&machine.spec.size) * ((1 << 20) - (1 << 15)))
}

fn date(now: OffsetDateTime, arguments: &[String]) -> Outcome {
    let wanted =
        arguments.iter().map(String::as_str).find(|argument| !["-u", "--utc", "--universal"].contains(argument));
    let format = match wanted {
        None => "%a %b %e %T UTC %Y",
        Some("-R" | "--rfc-email") => "%a, %d %b %Y %T +0000",
        Some("-I" | "--iso-8601") => "%F",
        Some("-Iseconds" | "--iso-8601=seconds") => "%FT%T+00:00",
        Some(format) if format.starts_with('+') => &format[1..],
        Some(other) => return Outcome::fails(1, format!("date: invalid date '{other}'")),
    };
    Outcome::says(format!("{}\n", formatted(now, format)))
}

/// A time as `date` writes it; what it does not know stays as it is.
fn formatted(now: OffsetDateTime, format: &str) -> String {
    let (mut text, mut characters) = (String::new(), format.chars());
    let short = |name: String| name.chars().take(3).collect::<String>();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        let written = match characters.next() {
            Some('Y') => now.year().to_string(),
            Some('m') => format!("{:02}", u8::from(now.month())),
            Some('d') => format!("{:02}", now.day()),
            Some('e') => format!("{:2}", now.day()),
            Some('H') => format!("{:02}", now.hour()),
            Some('M') => format!("{:02}", now.minute()),
            Some('S') => format!("{:02}", now.second()),
            Some('N') => format!("{:09}", now.nanosecond()),
            Some('s') => now.unix_timestamp().to_string(),
            Some('a') => short(now.weekday().to_string()),
            Some('A') => now.weekday().to_string(),
            Some('b') => short(now.month().to_string()),
            Some('B') => now.month().to_string(),
            Some('F') => formatted(now, "%Y-%m-%d"),
            Some('T') => formatted(now, "%H:%M:%S"),
            Some('z') => "+0000".to_owned(),
            Some('Z') => "UTC".to_owned(),
            Some('%') => "%".to_owned(),
            Some(other) => format!("%{other}"),
            None => "%".to_owned(),
        };
        text += &written;
    }
    text
}

fn uptime(now: OffsetDateTime, up: Duration, arguments: &[String]) -> Outcome {
    let (days, hours, minutes) = (up.whole_days(), up.whole_hours() % 24, up.whole_minutes() % 60);
    let many = |count: i64, unit: &str| format!("{count} {unit}{}", if count == 1 { "" } else { "s" });
    match arguments.first().map(String::as_str) {
        Some("-s" | "--since") => Outcome::says(format!("{}\n", formatted(now - up, "%F %T"))),
        Some("-p" | "--pretty") => {
            let parts = [(days, "day"), (hours, "hour"), (minutes, "minute")];
            let said: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| many(*n, unit)).collect();
            Outcome::says(format!("up {}\n", said.join(", ")))
        }
        _ => {
            let clock =
                if up.whole_hours() == 0 { format!("{minutes} min") } else { format!("{hours:2}:{minutes:02}") };
            let days = if days > 0 { format!("{}, ", many(days, "day")) } else { String::new() };
            let time = formatted(now, "%T");
            Outcome::says(format!(" {time} up {days}{clock},  1 user,  load average: 0.08, 0.03, 0.01\n"))
        }
    }
}

fn free(total: u64, arguments: &[String]) -> Outcome {
    let letter = arguments.iter().find_map(|argument| argument.strip_prefix('-')?.chars().next()).unwrap_or('k');
    let unit = |kib: u64| match letter {
        'b' => (kib << 10).to_string(),
        'm' => (kib >> 10).to_string(),
        'g' => (kib >> 20).to_string(),
        'h' if kib >= 10 << 20 => format!("{}Gi", kib >> 20),
        'h' if kib >= 1 << 20 => format!("{:.1}Gi", kib as f64 / f64::from(1 << 20)),
        'h' if kib > 0 => format!("{}Mi", kib >> 10),
        'h' => "0B".to_owned(),
        _ => kib.to_string(),
    };
    let (used, cache) = (total / 10, total / 5);
    let memory = [total, used, total - used - cache, 1024, cache, total - used].map(unit);
    let row = |name: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>12}")).collect();
        format!("{name:<8}{cells}\n")
    };
    let heading = "               total        used        free      shared  buff/cache   available\n";
    Outcome::says(format!("{heading}{}{}", row("Mem:", &memory), row("Swap:", &[0, 0, 0].map(unit))))
}

/// One interface: number, name, flags, packet size, kind of link, hardware address, addresses.
struct Link {
    name: String,
    flags: &'static str,
    packet_bytes: u16,
    kind: &'static str,
    addresses: Vec<String>,
}

fn links(machine: &Machine) -> Vec<Link> {
    let link = |name: &str, flags, packet_bytes, kind, addresses| Link {
        name: name.to_owned(),
        flags,
        packet_bytes,
        kind,
        addresses,
    };
    let ethernet = "BROADCAST,MULTICAST,UP,LOWER_UP";
    let mut links = vec![
        link("lo", "LOOPBACK,UP,LOWER_UP", u16::MAX, "loopback", vec!["127.0.0.1/8".to_owned()]),
        link("eth0", ethernet, 1500, "ether", vec![format!("{}/24", machine.spec.private_ip)]),
    ];
    let tunnel = "POINTOPOINT,NOARP,UP,LOWER_UP";
    links.extend(
        machine.interfaces.iter().map(|(name, interface)| link(name, tunnel, 1420, "none", interface.ranges())),
    );
    links
}

/// `ip [-4] [-br] address|link [show] [dev NAME]` and `ip route`.
fn ip(machine: &Machine, arguments: &[String]) -> Outcome {
    let is_brief = arguments.iter().any(|argument| ["-br", "-brief"].contains(&argument.as_str()));
    let words: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    let (object, rest) = words.split_first().map_or(("help", &[][..]), |(object, rest)| (*object, rest));
    let only = rest.iter().copied().find(|word| !["show", "list", "dev"].contains(word));
    let mut links = links(machine);
    let is_one_of = |whole: &str| whole.starts_with(object);
    if is_one_of("route") {
        let subnet = machine.spec.private_ip.octets();
        let network = |last| format!("{}.{}.{}.{last}", subnet[0], subnet[1], subnet[2]);
        return Outcome::says(format!(
            "default via {} dev eth0 proto dhcp src {own} metric 100 \n{}/24 dev eth0 proto kernel scope link src {own} metric 100 \n",
            network(1),
            network(0),
            own = machine.spec.private_ip
        ));
    }
    if !is_one_of("address") && !is_one_of("link") {
        return Outcome::fails(255, format!("Object \"{object}\" is unknown, try \"ip help\"."));
    }
    let numbered: Vec<(usize, Link)> =
        (1..).zip(links.drain(..)).filter(|(_, link)| only.is_none_or(|only| only == link.name)).collect();
    if let (Some(only), true) = (only, numbered.is_empty()) {
        return Outcome::fails(1, format!("Device \"{only}\" does not exist."));
    }
    let text = numbered.iter().map(|(number, link)| link.text(*number, is_brief, is_one_of("address")));
    Outcome::says(text.collect::<String>())
}

impl Link {
    fn text(&self, number: usize, is_brief: bool, with_addresses: bool) -> String {
        let state = if self.kind == "ether" { "UP" } else { "UNKNOWN" };
        let Self { name, flags, packet_bytes, kind, addresses } = self;
        if is_brief {
            return format!("{name:<16} {state:<14} {} \n", addresses.join(" "));
        }
        let hardware = match *kind {
            "loopback" => " 00:00:00:00:00:00 brd 00:00:00:00:00:00",
            "ether" => " 00:0d:3a:00:00:01 brd ff:ff:ff:ff:ff:ff",
            _ => " ",
        };
        let mut text = format!(
            "{number}: {name}: <{flags}> mtu {packet_bytes} qdisc mq state {state} group default qlen 1000\n    link/{kind}{hardware}\n"
        );
        for address in addresses.iter().filter(|_| with_addresses) {
            text +=
                &format!("    inet {address} scope global {name}\n       valid_lft forever preferred_lft forever\n");
        }
        text
    }
}

/// `ps`: the caller's own processes; with `-e`, `-A` or `a` and `x` those of all: what systemd has started.
fn ps(machine: &Machine, who: &Who, arguments: &[String]) -> Outcome {
    let letters: String = arguments.iter().map(|argument| argument.trim_start_matches('-')).collect();
    let (is_all, is_full) = (letters.contains(['e', 'A', 'x']), letters.contains(['f', 'u']));
    let mut processes = vec![(1, "root", "/sbin/init".to_owned())];
    let started = machine.units.iter().filter(|(_, unit)| unit.process > 0 && unit.active() == "active");
    processes.extend(started.map(|(name, unit)| (unit.process, "root", command_of(name))));
    processes.retain(|_| is_all);
    let user = who.user.as_str();
    processes.extend([(1000, user, "-bash".to_owned()), (1001, user, format!("ps {}", arguments.join(" ")))]);
    let line = |(process, user, command): &(u32, &str, String)| match (is_full, letters.contains('u')) {
        (true, true) => format!("{user:<8} {process:>7}  0.0  0.1  17892  9216 ?        Ss   08:00   0:00 {command}\n"),
        (true, false) => format!("{user:<8} {process:>7}       1  0 08:00 ?        00:00:00 {command}\n"),
        _ => {
            let name = command.trim_start_matches('-').split([' ', ':']).next().unwrap_or_default();
            format!("{process:>7} ?        00:00:00 {}\n", name.rsplit('/').next().unwrap_or_default())
        }
    };
    let heading = match (is_full, letters.contains('u')) {
        (true, true) => "USER         PID %CPU %MEM    VSZ   RSS TTY      STAT START   TIME COMMAND\n",
        (true, false) => "UID          PID    PPID  C STIME TTY          TIME CMD\n",
        _ => "    PID TTY          TIME CMD\n",
    };
    Outcome::says(processes.iter().fold(heading.to_owned(), |text, process| text + &line(process)))
}

/// What a unit's process is called.
fn command_of(unit: &str) -> String {
    match unit {
        "ssh" => "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups".to_owned(),
        "k0scontroller" => "/usr/local/bin/k0s controller".to_owned(),
        "k0sworker" => "/usr/local/bin/k0s worker".to_owned(),
        other => format!("/usr/sbin/{other}"),
    }
}
