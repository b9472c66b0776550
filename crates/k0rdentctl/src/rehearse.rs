//! `rehearse`: the whole run on the twin, in memory, and a report of it. No account, no cost.

use std::{path::PathBuf, time::Duration};

use engine::{Message, Stop};
use rehearsal::{Report, Script, drawn_faults, rehearse};
use tokio::sync::watch;

use crate::{
    arguments::Rehearse,
    commands::Context,
    configuration::{self, Configuration},
    error::{CommandError, Exit},
    signals::Signals,
    views::{rehearsal::text, run::View},
};

/// How much world time passes between two pauses when somebody watches.
const BEAT: Duration = Duration::from_millis(250);

/// Rehearses, on a runtime whose clock jumps to the next thing that happens.
pub(crate) fn run(context: &Context, arguments: &Rehearse) -> Result<u8, CommandError> {
    // `cargo run` becomes this program, so what the compiler took would be counted too.
    let before = cpu_seconds();
    let configuration = configuration::read(context)?;
    let runtime = rehearsal::runtime(arguments.seed).enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::failed(format!("no runtime: {error}")))?;
    let mut report = runtime.block_on(on_the_twin(context, arguments, &configuration))?;
    runtime.shutdown_background();
    (report.cpu_seconds, report.peak_memory_bytes) = (cpu_seconds() - before, peak_memory_bytes());
    if context.printer.is_json() {
        context.printer.document(&report);
    } else {
        context.printer.result(&text(&report, &configuration.config, context.global.verbose > 0));
    }
    Ok(match (report.outcome, report.leftovers.is_empty()) {
        ("succeeded", _) => 0,
        (_, false) => Exit::Leftovers as u8,
        _ => Exit::Failed as u8,
    })
}

async fn on_the_twin(
    context: &Context,
    arguments: &Rehearse,
    configuration: &Configuration,
) -> Result<Report, CommandError> {
    let thrown_away = tempfile::tempdir().map_err(|error| CommandError::file(&error))?;
    let home = arguments.keep.clone().unwrap_or_else(|| PathBuf::from(thrown_away.path()));
    if deploy::session::recorded(&home)?.is_some() {
        return Err(CommandError::usage(format!("{}: there is an environment already", home.display()))
            .hint("name a new directory with --keep"));
    }
    let watched = arguments.speed.is_some() || context.global.verbose > 0;
    let view = (watched && !context.printer.is_json()).then(|| View::new(context, 1.0));
    let listener = |message: &Message| {
        if let Some(view) = &view {
            view.see(message);
        }
    };
    let faults = arguments.faults.map(|seed| drawn_faults(seed, &configuration.config)).unwrap_or_default();
    for fault in &faults {
        context.printer.say(&format!("fault: {}", serde_json::to_string(fault).unwrap_or_default()));
    }
    let (stop, receiver) = watch::channel(Stop::No);
    // The twin has a subscription and a tenant of its own.
    let mut config = configuration.config.clone();
    (config.azure.subscription_id, config.azure.tenant_id) = (None, None);
    let script = Script {
        config_text: &configuration.text,
        config: &config,
        home: &home,
        seed: arguments.seed,
        faults,
        listener: &listener,
        stop: receiver,
    };
    let mut signals = Signals::listen()?;
    let mut rehearsing = std::pin::pin!(rehearse(&script));
    let mut pacing = std::pin::pin!(pace(arguments.speed, &view));
    let result = loop {
        tokio::select! {
            biased;
            result = &mut rehearsing => break result,
            _ = signals.next() => { stop.send_replace(Stop::Now); }
            () = &mut pacing => {}
        }
    };
    if let Some(view) = &view {
        view.end();
    }
    Ok(result?)
}

/// Lets real time pass with world time, `speed` world seconds to a second. The whole thread waits: nothing may happen
/// in the world meanwhile.
async fn pace(speed: Option<f64>, view: &Option<View<'_>>) {
    let Some(speed) = speed else { return std::future::pending().await };
    loop {
        engine::pause(BEAT).await;
        #[expect(clippy::disallowed_methods, reason = "slows the rehearsal down for people who watch")]
        std::thread::sleep(BEAT.div_f64(speed));
        if let Some(view) = view {
            view.tick();
        }
    }
}

/// CPU time of this process, in user and system mode: fields 14 and 15 of /proc/self/stat, in hundredths of a second
/// (Linux documentation, proc(5)); 0 where there is no such file.
fn cpu_seconds() -> f64 {
    let stat = fs_err::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field, in parentheses, may contain spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    (ticks(14) + ticks(15)) / 100.0
}

/// The largest amount of memory that this process has had (Linux documentation, proc(5): VmHWM).
fn peak_memory_bytes() -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap_or_default();
    kibibytes * 1024
}
