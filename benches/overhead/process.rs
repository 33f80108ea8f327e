//! The threads of the process and the dependencies of the library.

use crate::report::Report;
use std::{collections::BTreeSet, fs, io, process::Command};

/// The thread of `async-io`'s reactor. On smol and async-std it is the executor's own, and
/// here the peers start it as well.
const REACTOR: &str = "async-io";

/// Panics where threads cannot be counted.
pub fn expect_threads() {
    thread_names().expect("the threads in /proc");
}

/// Counts the threads left at the end beyond the main thread and the reactor's. All
/// executors with threads of their own are gone by then.
pub fn threads(report: &mut Report) {
    let mut names = thread_names().expect("the threads in /proc");
    names.sort();
    let beyond = names.iter().filter(|name| *name != REACTOR).count() - 1;
    println!("\nthreads at the end: {}", names.join(", "));
    report.count("threads", beyond as f64);
}

fn thread_names() -> io::Result<Vec<String>> {
    fs::read_dir("/proc/self/task")?
        .map(|task| {
            let name = fs::read_to_string(task?.path().join("comm"))?;
            Ok(name.trim_end().to_owned())
        })
        .collect()
}

/// Counts the packages that users compile with default features, including this one.
pub fn crates(report: &mut Report) {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree", "--locked", "-e", "normal", "--prefix", "none", "--format", "{p}",
        ])
        .args(["--package", "crabllm-retry"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let stderr = String::from_utf8_lossy(&tree.stderr);
    assert!(tree.status.success(), "cargo tree: {stderr}");
    let stdout = String::from_utf8_lossy(&tree.stdout);
    let packages: BTreeSet<_> = stdout.lines().map(package).collect();
    report.count("crates", packages.len() as f64);
}

/// The name and the version of a package, without its path.
fn package(line: &str) -> &str {
    line.split_once(" (").map_or(line, |(package, _)| package)
}
