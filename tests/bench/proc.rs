//! What the kernel says of a process.

use std::fs;

fn field(pid: u32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

/// Resident memory in MiB.
pub fn resident(pid: u32) -> f64 {
    field(pid, "VmRSS:")
}

/// The highest it has been, in MiB.
pub fn peak(pid: u32) -> f64 {
    field(pid, "VmHWM:")
}

/// Resident memory that no file backs, in MiB: what the program has allocated.
pub fn anonymous(pid: u32) -> f64 {
    field(pid, "RssAnon:")
}

/// Processor time that a process has used; the kernel counts in hundredths of a second.
pub fn cpu(pid: u32) -> std::time::Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    std::time::Duration::from_millis(ticks * 10)
}
