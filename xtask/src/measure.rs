//! `cargo xtask measure`: rehearses clusters of several sizes with the released program, and prints what they cost; then
//! brings machines up on a twin that is as slow as Azure.

use std::{
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::cargo::{cargo, metadata, program};

/// Controllers and workers.
const SIZES: [(u32, u32); 4] = [(1, 0), (3, 3), (5, 45), (3, 497)];
/// How long a served twin may take to begin.
const TWIN_PATIENCE: Duration = Duration::from_secs(20);

/// Whether every rehearsal succeeded.
pub(crate) fn run() -> Result<bool, String> {
    let built = cargo().args(["build", "--release", "--package", "k0rdentctl"]).status();
    if !built.map_err(|error| format!("cargo build: {error}"))?.success() {
        return Err("cargo build failed".to_owned());
    }
    let metadata = metadata()?;
    let target = Path::new(metadata["target_directory"].as_str().unwrap_or_default());
    let binary = target.join("release/k0rdentctl");
    let directory = target.join("measure");
    fs_err::create_dir_all(&directory).map_err(|error| error.to_string())?;
    println!("{}", row(&HEADINGS));
    let mut succeeded = true;
    for (controllers, workers) in SIZES {
        let config = directory.join(format!("{controllers}+{workers}.yaml"));
        fs_err::write(&config, configuration(controllers, workers)).map_err(|error| error.to_string())?;
        let report = rehearse(&binary, &config)?;
        println!("{}", row(&cells(&format!("{controllers}+{workers}"), &report)));
        succeeded &= report["outcome"] == "succeeded";
    }
    let (seconds, cpu_seconds) = served(&binary, &directory)?;
    println!(
        "\n3+2 until the mesh stands, on a served twin at the speed of the world: {seconds:.0} s, {cpu_seconds:.2} CPU s"
    );
    Ok(succeeded)
}

/// Deploys machines over TCP, product and twin each a process of its own: seconds of real time, and CPU seconds of the
/// product.
#[expect(clippy::disallowed_methods, reason = "a chore of the project, which measures real time")]
fn served(binary: &Path, directory: &Path) -> Result<(f64, f64), String> {
    let scratch = directory.join("served");
    if scratch.exists() {
        fs_err::remove_dir_all(&scratch).map_err(|error| error.to_string())?;
    }
    fs_err::create_dir_all(&scratch).map_err(|error| error.to_string())?;
    fs_err::write(scratch.join("k0rdent.yaml"), configuration(3, 2)).map_err(|error| error.to_string())?;
    let command = || {
        let mut command = program(&binary.to_string_lossy());
        command.current_dir(&scratch).stdin(Stdio::null()).stdout(Stdio::null());
        command
    };
    let failed = |error: std::io::Error| format!("{}: {error}", binary.display());
    let mut twin = command().args(["twin", "serve", "--data-dir", "twin", "--speed", "1"]).spawn().map_err(failed)?;
    let result = serves(&mut twin, &scratch.join("twin/endpoints.json")).and_then(|()| {
        let (began, before) = (Instant::now(), children_cpu_seconds()?);
        let deploy =
            command().args(["--twin", "twin", "deploy", "--yes", "--until", "mesh"]).status().map_err(failed)?;
        let spent = (began.elapsed().as_secs_f64(), children_cpu_seconds()? - before);
        if deploy.success() { Ok(spent) } else { Err(format!("deploy on a served twin: {deploy}")) }
    });
    twin.kill().map_err(failed)?;
    twin.wait().map_err(failed)?;
    result
}

/// Waits until the twin has written where it is.
#[expect(clippy::disallowed_methods, reason = "a chore of the project, which waits in real time")]
fn serves(twin: &mut Child, endpoints: &Path) -> Result<(), String> {
    let began = Instant::now();
    while !endpoints.exists() {
        if let Some(status) = twin.try_wait().map_err(|error| error.to_string())? {
            return Err(format!("twin serve: {status}"));
        }
        if began.elapsed() > TWIN_PATIENCE {
            return Err(format!("twin serve: nothing after {} s", TWIN_PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// CPU time of the children that were waited for: fields 16 and 17 of /proc/self/stat, in hundredths of a second (Linux
/// documentation, proc(5)).
fn children_cpu_seconds() -> Result<f64, String> {
    let stat = fs_err::read_to_string("/proc/self/stat").map_err(|error| error.to_string())?;
    // The second field, in parentheses, may contain spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(13).take(2).filter_map(|text| text.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() / 100.0)
}

/// A configuration of that size, in networks that are large enough for 500 machines.
fn configuration(controllers: u32, workers: u32) -> String {
    format!(
        "network:\n  subnet_prefix: 10.0.0.0/20\n  wireguard_network: 172.20.0.0/20\n  pod_cidr: 10.128.0.0/14\n\
         cluster:\n  controllers: {{count: {controllers}, zones: [1, 2, 3]}}\n  workers: {{count: {workers}, zones: [1, 2, 3]}}\n"
    )
}

fn rehearse(binary: &Path, config: &Path) -> Result<Value, String> {
    let mut command = program(&binary.to_string_lossy());
    command.args(["rehearse", "--output", "json", "--quiet", "--config"]).arg(config).stderr(Stdio::inherit());
    let output = command.output().map_err(|error| format!("{}: {error}", binary.display()))?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{}: no report ({error}); {}", config.display(), output.status))
}

const HEADINGS: [&str; 11] = [
    "size",
    "outcome",
    "makespan s",
    "critical s",
    "ratio",
    "reads",
    "writes",
    "deletes",
    "throttled",
    "CPU s",
    "peak MB",
];

fn cells(size: &str, report: &Value) -> [String; 11] {
    let decimal = |key: &str, places: usize| format!("{:.places$}", report[key].as_f64().unwrap_or(f64::NAN));
    let requests = |key: &str| report["requests"][key].to_string();
    let peak_megabytes = report["peak_memory_bytes"].as_f64().unwrap_or(f64::NAN) / 1e6;
    [
        size.to_owned(),
        report["outcome"].as_str().unwrap_or("unknown").to_owned(),
        decimal("makespan_seconds", 1),
        decimal("critical_path_seconds", 1),
        decimal("overhead_ratio", 3),
        requests("reads"),
        requests("writes"),
        requests("deletes"),
        requests("throttled"),
        decimal("cpu_seconds", 1),
        format!("{peak_megabytes:.0}"),
    ]
}

fn row(cells: &[impl AsRef<str>; 11]) -> String {
    cells.iter().map(|cell| format!("{:>11}", cell.as_ref())).collect()
}
