//! The threads of the process and the dependencies of the package.

use crate::report::Report;
use std::{collections::BTreeSet, fs, io, process::Command};

/// The thread of `async-io`'s reactor: the executor's own where smol or
/// async-std is that executor, and brought here by the peers as well.
const REACTOR: &str = "async-io";

/// Panics where threads cannot be counted.
pub fn expect_threads() {
    thread_names().expect("the threads in /proc");
}

/// Counts the threads that are left at the end, when every executor but the
/// one of the main thread is gone, beyond that thread and the reactor's.
pub fn threads(report: &mut Report) {
    let mut names = thread_names().expect("the threads in /proc");
    names.sort();
    let beyond = names.iter().filter(|name| *name != REACTOR).count() - 1;
    report.note(format!("threads at the end: {}", names.join(", ")));
    report.count("threads", Some(beyond as f64));
}

fn thread_names() -> io::Result<Vec<String>> {
    fs::read_dir("/proc/self/task")?
        .map(|task| {
            let name = fs::read_to_string(task?.path().join("comm"))?;
            Ok(name.trim_end().to_owned())
        })
        .collect()
}

/// Counts the packages that users compile with default features, this one
/// among them.
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
    report.count("crates", Some(packages.len() as f64));
}

/// The name and the version of a package, without its path and other remarks.
fn package(line: &str) -> &str {
    line.split_once(" (").map_or(line, |(package, _)| package)
}
