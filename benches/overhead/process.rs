//! The threads of the process and the dependencies of the library.

use crate::count;
use std::{collections::BTreeSet, fs, process::Command};

/// The thread of `async-io`'s reactor. On smol and async-std it is the executor's own, and
/// here the peers start it as well.
const REACTOR: &str = "async-io";

/// Counts the threads beyond the main thread and the reactor's.
pub fn threads() {
    let tasks = fs::read_dir("/proc/self/task").expect("the threads in /proc");
    let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
    let others = names.filter(|name| name.trim_end() != REACTOR).count() - 1;
    count("threads", others as f64);
}

/// Counts the packages that users compile with default features, including this one.
pub fn crates() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--package", "crabllm-retry"])
        .args(["-e", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let stderr = String::from_utf8_lossy(&tree.stderr);
    assert!(tree.status.success(), "cargo tree: {stderr}");
    let stdout = String::from_utf8_lossy(&tree.stdout);
    // The name and the version, without the path.
    let packages: BTreeSet<_> = stdout.lines().map(|line| line.split(" (").next()).collect();
    count("crates", packages.len() as f64);
}
