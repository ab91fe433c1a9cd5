//! The rules of this repository, as tests: what depends on what, who may call the operating system, where `unsafe`
//! lives, and that the words are where they are promised.
//!
//! A rule is a pure function from text to findings, so that each is itself tested on text that breaks it (module
//! `rules_can_fail`): a check that cannot fail is a defect. The lists at the top are the whole policy. Every exception
//! in them has a reason, and one that is no longer needed fails too.
#![allow(clippy::unwrap_used)]

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/rules_can_fail.rs"]
mod rules_can_fail;
#[path = "tidy/rust.rs"]
mod rust;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use rules::*;
use rust::{begins_with, code, has_word};

/// Which packages of ours a package may depend on. A package that is not listed is a finding.
const EDGES: [(&str, &[&str]); 8] = [
    ("tidemill-derive", &[]),
    ("tidemill-storage", &["tidemill-derive"]),
    ("tidemill-storage-fuzz", &["tidemill-storage"]),
    ("tidemill-engine", &["tidemill-storage"]),
    ("tidemill-postgres-server", &[]),
    ("tidemill-operators", &["tidemill-engine", "tidemill-storage", "tidemill-postgres-server"]),
    ("tidemill", &["tidemill-derive", "tidemill-storage", "tidemill-engine", "tidemill-operators"]),
    ("tidemill-bench", &["tidemill", "tidemill-postgres-server"]),
];

/// Packages that are there for tests, and the programs that may use them too: what is shipped must not.
const FOR_TESTS: [(&str, &[&str]); 1] = [("tidemill-postgres-server", &["tidemill-bench"])];

/// Dependencies that only some packages may have, and why.
const CONFINED: [(&str, &[&str], &str); 8] = [
    ("glommio", &["tidemill-engine"], "executors stay behind the platform seam"),
    ("core_affinity", &["tidemill-engine", "tidemill-bench"], "pinning; the benchmarks pin their peers too"),
    ("io-uring", &["tidemill-engine", "tidemill-storage"], "the probe, and the writer of snapshots"),
    ("libc", &["tidemill-engine", "tidemill-storage"], "flags and error codes, of the platform and the disk"),
    ("mimalloc", &["tidemill-bench", "tidemill"], "the allocator of programs is not the library's to choose"),
    (
        "renoir",
        &["tidemill-bench"],
        "a peer to measure against; its licence (LGPL) must not reach the library",
    ),
    ("timely", &["tidemill-bench"], "a peer to measure against"),
    (
        "ahash",
        &["tidemill-bench", "tidemill-storage"],
        "its output is not stable: never for what is stored or sent",
    ),
];

/// Where the rule about the operating system holds: everything but the programs (`bench`, `examples`) and tests.
const OS_FREE: [&str; 4] = ["engine/src/", "operators/src/", "storage/src/", "src/"];

/// Who may call the operating system all the same: path prefix, what, why.
const OS_ALLOWED: [(&str, &[&str], &str); 13] = [
    ("engine/src/platform/", &["std", "libc", "glommio", "core_affinity", "io_uring"], "the seam itself"),
    ("operators/src/sim/mod.rs", &["std::env", "std::thread"], "a test is told its seed, and tells its name"),
    ("operators/src/sink/stdout.rs", &["print"], "the sink whose purpose is the standard output"),
    ("storage/src/background.rs", &["libc"], "threads stand back behind data cores"),
    ("storage/src/log/pool.rs", &["std::thread"], "memory is faulted in off the data core"),
    ("storage/src/snapshot/disk/mod.rs", &["std::os"], "the disk's seam"),
    ("storage/src/snapshot/disk/os.rs", &["std::fs", "std::os", "std::process", "libc"], "the disk's seam"),
    ("storage/src/snapshot/disk/reads.rs", &["std::os", "io_uring"], "the disk's seam"),
    ("storage/src/snapshot/disk/uring.rs", &["std::fs", "std::os", "libc", "io_uring"], "the disk's seam"),
    ("storage/src/snapshot/ahead.rs", &["std::thread"], "a restore reads ahead beside the data core"),
    ("storage/src/snapshot/thread.rs", &["std::thread"], "snapshots are written off the data core"),
    ("src/command/", &["std::process", "print"], "the command speaks to a terminal and has an exit code"),
    ("src/main.rs", &["std::process"], "the command has an exit code"),
];

/// What counts as calling the operating system, as the beginning of a path.
const OS_PATHS: [&str; 12] = [
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "std::os",
    "std::time::Instant",
    "std::time::SystemTime",
    "libc",
    "glommio",
    "core_affinity",
    "io_uring",
];
/// As [`OS_PATHS`], to the letter: with the whole module in scope `time::Instant` would not be seen.
const OS_NAMES: [&str; 3] = ["std::time", "std::time::self", "std::time::*"];
/// As [`OS_PATHS`], and call nothing all the same: they are numbers.
const OS_VALUES: [&str; 2] = ["std::net::SocketAddr", "std::net::IpAddr"];
/// The standard streams as functions of `std::io`.
const OS_STREAMS: [&str; 3] = ["stdin", "stdout", "stderr"];
/// The same as macros.
const OS_MACROS: [&str; 5] = ["print", "println", "eprint", "eprintln", "dbg"];

/// The leaf modules that hold `unsafe` code, and what for. Each opts in with `allow(unsafe_code)`.
const UNSAFE_LEAVES: [(&str, &str); 14] = [
    ("engine/src/platform/os.rs", "system calls without a safe wrapper"),
    ("engine/src/runtime/exchange/batch.rs", "reads records in place that it wrote itself"),
    ("storage/src/background.rs", "a system call without a safe wrapper"),
    (
        "storage/src/log/block.rs",
        "memory that the writer's thread reads while its owner writes elsewhere in it",
    ),
    ("storage/src/log/blocks.rs", "reaches records by address"),
    ("storage/src/log/index.rs", "reaches buckets by address, and compares tags as vectors"),
    ("storage/src/log/place.rs", "reads and writes the parts of a record by address"),
    ("storage/src/log/pool.rs", "hands out memory by address"),
    ("storage/src/prefetch.rs", "an instruction that only touches the cache"),
    ("storage/src/record.rs", "reads archives, checked or on the caller's word"),
    ("storage/src/record/write_as.rs", "rkyv's contract for borrowed forms"),
    ("storage/src/snapshot/disk/reads.rs", "the kernel writes to buffers after the call has returned"),
    ("storage/src/snapshot/disk/uring.rs", "the kernel reads buffers after the call has returned"),
    ("storage/src/writer.rs", "resolves rkyv archives in a buffer of its own"),
];

/// The macros that write `unsafe` into the code they generate; they contain none themselves.
const UNSAFE_WRITTEN: [&str; 4] = [
    "storage/derive/src/enums.rs",
    "storage/derive/src/record.rs",
    "storage/derive/src/structs.rs",
    "storage/derive/src/write_as.rs",
];

/// Longest file, in lines.
const LINES_MAX: usize = 900;

/// Minimum compiler, stated once in the workspace.
const RUST_VERSION: &str = "1.95";

/// What was left for later and forgotten. Put together here, so that this file does not find itself.
const MARKERS: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("to", "do!"),
    concat!("unimpl", "emented!"),
];

// ---------------------------------------------------------------------------------------------- rules on the repository

#[test]
fn dependencies_point_one_way() {
    let tree = Tree::read();
    assert!(tree.manifests().count() >= EDGES.len(), "a manifest was not found");
    report(tree.manifests().flat_map(|(path, text)| edge_findings(path, text)));
}

#[test]
fn data_plane_and_control_plane_never_name_each_other() {
    let tree = Tree::read();
    let both = [("engine/src/runtime/", "control"), ("engine/src/control/", "runtime")];
    report(both.into_iter().flat_map(|(place, other)| {
        let files: Vec<_> = tree.rust().filter(|(path, _)| path.starts_with(place)).collect();
        assert!(!files.is_empty(), "there is nothing in {place}");
        files.into_iter().flat_map(move |(path, text)| word_findings(path, text, other)).collect::<Vec<_>>()
    }));
}

#[test]
fn only_the_platform_and_the_listed_leaves_call_the_operating_system() {
    let tree = Tree::read();
    let files = || tree.rust().filter(|(path, _)| OS_FREE.iter().any(|place| path.starts_with(place)));
    assert!(files().count() > 50, "the sources were not found");
    report(files().flat_map(|(path, text)| os_findings(path, text)));
    for (prefix, what, _) in OS_ALLOWED {
        let calls: Vec<_> = files()
            .filter(|(path, _)| path.starts_with(prefix))
            .flat_map(|(path, text)| os_calls(path, text))
            .collect();
        for what in what {
            assert!(
                calls.iter().any(|(_, called)| begins_with(called, what)),
                "{prefix} needs no `{what}` any more"
            );
        }
    }
}

#[test]
fn every_source_file_says_what_it_is() {
    report(Tree::read().rust().flat_map(|(path, text)| opening_findings(path, text)));
}

#[test]
fn nothing_was_left_for_later() {
    report(Tree::read().texts().flat_map(|(path, text)| marker_findings(path, text)));
}

#[test]
fn unsafe_code_lives_in_the_listed_leaves_and_says_why_it_is_sound() {
    let tree = Tree::read();
    report(tree.rust().flat_map(|(path, text)| unsafe_findings(path, text)));
    let root = tree.get("Cargo.toml");
    assert!(root.contains("unsafe_code = \"deny\""), "unsafe code is not denied by default");
    for path in UNSAFE_LEAVES.iter().map(|(path, _)| *path).chain(UNSAFE_WRITTEN) {
        assert!(has_word(&code(tree.get(path)), "unsafe"), "{path} is listed as unsafe and is not");
    }
}

#[test]
fn files_are_short() {
    report(Tree::read().rust().flat_map(|(path, text)| length_findings(path, text)));
}

#[test]
fn every_dependency_is_argued() {
    let tree = Tree::read();
    let used: Vec<_> = tree.manifests().map(|(_, text)| text).collect();
    report(argument_findings(tree.get("Cargo.toml"), &used, tree.get("docs/dependencies.md")));
}

#[test]
fn links_lead_somewhere() {
    let tree = Tree::read();
    let pages = || tree.texts().filter(|(path, _)| path.ends_with(".md"));
    assert!(pages().count() >= 5, "the pages were not found");
    report(pages().flat_map(|(path, text)| {
        link_findings(path, text, |target| {
            tree.paths.contains(target).then(|| tree.files.get(target).map_or("", String::as_str))
        })
    }));
}

#[test]
fn tests_that_pages_name_are_there() {
    let tree = Tree::read();
    let pages = || tree.texts().filter(|(path, _)| path.ends_with(".md"));
    let look = |target: &str| tree.files.get(target).map(String::as_str);
    report(pages().flat_map(|(path, text)| named_test_findings(path, text, look)));
}

#[test]
fn snippets_are_tested() {
    let tree = Tree::read();
    let book = tree.get("src/book.rs");
    let pages = || tree.texts().filter(|(path, _)| path.ends_with(".md"));
    assert!(pages().filter(|(_, text)| text.contains("```rust")).count() >= 5, "the snippets were not found");
    report(pages().flat_map(|(path, text)| snippet_findings(path, text, book)));
}

#[test]
fn manifests_share_what_the_workspace_says() {
    let tree = Tree::read();
    report(tree.manifests().flat_map(|(path, text)| manifest_findings(path, text)));
    let workspace: toml::Table = tree.get("Cargo.toml").parse().unwrap();
    assert_eq!(workspace["workspace"]["package"]["rust-version"].as_str(), Some(RUST_VERSION));
}

#[test]
fn the_gate_runs_what_the_readme_promises() {
    let tree = Tree::read();
    report(command_findings(tree.get("README.md"), tree.get(".ci/run")));
}

// --------------------------------------------------------------------------------------------------------- the repository

/// Every file of the repository, by path from its root; the texts of those that rules look at.
struct Tree {
    files: BTreeMap<String, String>,
    /// Files and directories.
    paths: BTreeSet<String>,
}

impl Tree {
    fn read() -> Self {
        let mut tree = Self { files: BTreeMap::new(), paths: BTreeSet::new() };
        tree.walk(Path::new(env!("CARGO_MANIFEST_DIR")), "");
        assert!(tree.rust().count() > 100, "only {} source files were found", tree.rust().count());
        assert!(tree.files.contains_key("engine/src/runtime/worker.rs"), "the worker was not found");
        tree
    }

    fn walk(&mut self, directory: &Path, prefix: &str) {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = format!("{prefix}{name}");
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && (name.starts_with("target") || (name.starts_with('.') && name != ".ci")) {
                continue;
            }
            self.paths.insert(path.clone());
            if kind.is_dir() {
                self.walk(&entry.path(), &format!("{path}/"));
            } else if [".rs", ".toml", ".md"].iter().any(|end| name.ends_with(end)) || path == ".ci/run" {
                self.files.insert(path, fs::read_to_string(entry.path()).unwrap());
            }
        }
    }

    fn get(&self, path: &str) -> &str {
        self.files.get(path).unwrap_or_else(|| panic!("there is no {path}"))
    }

    fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(|(path, _)| path.ends_with(".rs"))
    }

    fn manifests(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(|(path, _)| *path == "Cargo.toml" || path.ends_with("/Cargo.toml"))
    }
}

/// Fails with all findings at once.
#[track_caller]
fn report(findings: impl IntoIterator<Item = String>) {
    let findings: Vec<String> = findings.into_iter().collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}
