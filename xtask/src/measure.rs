//! `cargo xtask measure`: rehearses clusters of several sizes with the released program, and prints what they cost.

use std::{path::Path, process::Stdio};

use serde_json::Value;

use crate::cargo::{cargo, metadata, program};

/// Controllers and workers.
const SIZES: [(u32, u32); 4] = [(1, 0), (3, 3), (5, 45), (3, 497)];

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
    Ok(succeeded)
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
