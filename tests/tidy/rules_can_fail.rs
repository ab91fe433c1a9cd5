//! Each rule on text that breaks it: a check that cannot fail is a defect.

use super::{LINES_MAX, MARKERS, rules::*, rust::code};

const PACKAGE: &str = "version.workspace = true\nedition.workspace = true\nrust-version.workspace = true\n\
    license.workspace = true\npublish.workspace = true\n[lints]\nworkspace = true\n";

#[test]
fn a_dependency_against_the_current_is_found_in_every_kind_of_table() {
    let manifest = |name: &str, rest: &str| format!("[package]\nname = \"{name}\"\n{rest}");
    let found = |name, rest| edge_findings("Cargo.toml", &manifest(name, rest)).len();
    assert_eq!(found("tidemill-engine", "[dependencies]\ntidemill-storage.workspace = true"), 0);
    assert_eq!(found("tidemill-storage", "[dependencies]\ntidemill-engine.workspace = true"), 1);
    assert_eq!(found("tidemill-storage", "[dev-dependencies]\ntidemill-engine.workspace = true"), 1);
    assert_eq!(
        found("tidemill-engine", "[target.'cfg(unix)'.dependencies]\ntidemill = { path = \"..\" }"),
        1
    );
    let renamed = "[build-dependencies]\nhelper = { package = \"tidemill-bench\", path = \"b\" }";
    assert_eq!(found("tidemill-operators", renamed), 1);
    assert_eq!(found("tidemill-bench", "[dependencies]\ntidemill-operators.workspace = true"), 1);
    assert_eq!(found("tidemill-operators", "[dependencies]\nglommio.workspace = true"), 1);
    assert_eq!(found("tidemill", "[dev-dependencies]\nrenoir.workspace = true"), 1);
    assert_eq!(found("tidemill-newcomer", ""), 1);
    assert_eq!(
        found("tidemill-operators", "[dev-dependencies]\ntidemill-postgres-server.workspace = true"),
        0
    );
    assert_eq!(found("tidemill-operators", "[dependencies]\ntidemill-postgres-server.workspace = true"), 1);
    assert_eq!(found("tidemill-bench", "[dependencies]\ntidemill-postgres-server.workspace = true"), 0);
}

#[test]
fn a_manifest_of_its_own_mind_is_found() {
    let good = format!("[package]\nname = \"tidemill\"\n{PACKAGE}[dependencies]\nrtrb.workspace = true\n");
    assert_eq!(manifest_findings("Cargo.toml", &good), [""; 0]);
    let old = good.replace("rust-version.workspace = true", "rust-version = \"1.80\"");
    assert_eq!(manifest_findings("Cargo.toml", &old).len(), 1);
    assert_eq!(manifest_findings("Cargo.toml", &good.replace("[lints]\nworkspace = true\n", "")).len(), 1);
    assert_eq!(
        manifest_findings("Cargo.toml", &good.replace("rtrb.workspace = true", "rtrb = \"*\"")).len(),
        1
    );
}

#[test]
fn the_other_plane_is_found_in_code_and_not_in_words() {
    let found = |text| word_findings("worker.rs", text, "control").len();
    assert_eq!(found("use crate::control::handle::JobHandle;"), 1);
    assert_eq!(found("use crate::{\n    model::task::Task,\n    control as above,\n};"), 1);
    assert_eq!(found("let flow = super::super::control::go();"), 1);
    assert_eq!(found("//! Far from control.\nlet a = \"control\"; let controlled = 1; /* control */"), 0);
}

#[test]
fn calls_of_the_operating_system_are_found_however_they_are_written() {
    let found = |text| os_findings("engine/src/runtime/worker.rs", text).len();
    assert_eq!(found("use std::fs::File;"), 1);
    assert_eq!(
        found("use std::{\n    sync::Arc,\n    time::{Duration, Instant as Now},\n    thread,\n};"),
        2
    );
    assert_eq!(found("let now = ::std::time::SystemTime::now();"), 1);
    assert_eq!(found("use std::time;"), 1);
    assert_eq!(found("use std::time::{self, Duration};"), 1);
    assert_eq!(found("libc::getpid(); glommio::yield_if_needed();"), 2);
    assert_eq!(found("std::thread::Builder::new().spawn(|| {});"), 1);
    assert_eq!(found("println!(\"here\"); io::stderr();"), 2);
    assert_eq!(found("use std::io::{Write, stdout};"), 1);
    assert_eq!(found("mod stdout; use std::net::SocketAddr; let stdin = (); sink::stdout();"), 0);
    assert_eq!(found("use std::{sync::Mutex, time::Duration, io::Write};"), 0);
    assert_eq!(found("// std::fs::read\nlet a = r#\"std::fs\"#; my::std::fs(); let println = 1;"), 0);
    assert_eq!(found("fn a() {}\n\n#[cfg(test)]\nmod tests {\n    use std::thread;\n}\n"), 0);
    assert_eq!(found("\n#[cfg(test)]\nmod tests {\n    fn a() {}\n}\nuse std::thread;\n"), 1);
    assert_eq!(os_findings("engine/src/platform/park.rs", "use std::thread;").len(), 0);
    assert_eq!(os_findings("src/main.rs", "use std::process::ExitCode;").len(), 0);
    assert_eq!(os_findings("src/main.rs", "use std::{process::ExitCode, fs};").len(), 1);
}

#[test]
fn a_file_without_an_opening_is_found() {
    assert_eq!(opening_findings("a.rs", "//! What it is.\n").len(), 0);
    for text in ["", "//!\nfn a() {}", "// What it is.", "use a;\n//! late"] {
        assert_eq!(opening_findings("a.rs", text).len(), 1, "{text}");
    }
}

#[test]
fn markers_are_found_as_words() {
    for marker in MARKERS {
        assert_eq!(
            marker_findings("a.rs", &format!("a\n// {marker}: later")),
            [format!("a.rs:2: `{marker}`")]
        );
        assert!(marker_findings("a.rs", &format!("a{marker}")).is_empty());
    }
}

#[test]
fn unsafe_code_without_place_or_reason_is_found() {
    let leaf = |text| unsafe_findings("storage/src/writer.rs", text).len();
    let other = |text| unsafe_findings("storage/src/key.rs", text).len();
    let reasoned = "#![allow(unsafe_code)]\n// SAFETY: it is.\nunsafe { go() }";
    assert_eq!(leaf(reasoned), 0);
    assert_eq!(leaf("#![allow(unsafe_code)]\n\nunsafe { go() }"), 1);
    let far = format!("#![allow(unsafe_code)]\n// SAFETY: it is.\n{}unsafe {{ go() }}", "\n".repeat(20));
    assert_eq!(leaf(&far), 1);
    assert_eq!(leaf("// SAFETY: it is.\nunsafe { go() }"), 1);
    assert_eq!(other(reasoned), 2);
    assert_eq!(other("#[allow(unsafe_code)]\nfn a() {}"), 1);
    assert_eq!(other("// unsafe, they say\nlet a = \"unsafe\";"), 0);
}

#[test]
fn a_long_file_is_found() {
    assert!(length_findings("a.rs", &"\n".repeat(LINES_MAX)).is_empty());
    assert_eq!(length_findings("a.rs", &"\n".repeat(LINES_MAX + 1)).len(), 1);
}

#[test]
fn an_unargued_dependency_is_found() {
    let workspace = "[workspace.dependencies]\ntidemill = { path = \".\" }\nrtrb = \"0.4\"\nbytes = { version = \"1.12\" }";
    let member = ["[dependencies]\nrtrb.workspace = true"];
    let page = "## In use\n| `rtrb` | 0.4 | a ring without locks for two threads |\n\n## Chosen, not in use yet\n\
                | `bytes` | 1.12 | network buffers that are shared |\n";
    let found = |page: &str| argument_findings(workspace, &member, page);
    assert_eq!(found(page), [""; 0]);
    assert_eq!(found(&page.replace("0.4", "0.3")).len(), 1, "another version");
    assert_eq!(found(&page.replace("`rtrb`", "`ring`")).len(), 2, "one is missing, one is stale");
    assert_eq!(found(&page.replace("a ring without locks for two threads", "good")).len(), 1, "no argument");
    assert_eq!(found(&page.replace("## Chosen, not in use yet", "")).len(), 1, "in the wrong table");
    assert_eq!(found(&format!("{page}| `rtrb` | 0.4 | a ring without locks for two threads |")).len(), 2);
}

#[test]
fn a_broken_link_is_found() {
    let look = |path: &str| match path {
        "docs/concepts.md" => Some("# Concepts\n## Keys & key groups\n"),
        "engine/src" => Some(""),
        _ => None,
    };
    let found =
        |link: &str| link_findings("docs/howto/a.md", &format!("see [it]({link})\n# Here\n"), look).len();
    for good in
        ["../concepts.md", "../concepts.md#keys--key-groups", "../../engine/src/", "#here", "https://a.b/c"]
    {
        assert_eq!(found(good), 0, "{good}");
    }
    for bad in ["concepts.md", "../concepts.md#values", "../../../concepts.md", "#there"] {
        assert_eq!(found(bad), 1, "{bad}");
    }
    assert!(link_findings("a.md", "```text\n[it](gone.md)\n```\n", |_| None).is_empty());
}

#[test]
fn a_test_that_a_page_names_and_that_is_not_there_is_found() {
    let look = |path: &str| match path {
        "engine/a.rs" => Some("#[test]\nfn nothing_is_ever_lost() {}\n"),
        "engine/b.rs" => Some("#[test]\nfn nothing_comes_twice_here() {}\n"),
        _ => None,
    };
    let found = |page: &str| named_test_findings("docs/a.md", page, look).len();
    for good in [
        "* `engine/a.rs`: `nothing_is_ever_lost`",
        "| row | `engine/{a,b}.rs`: `nothing_is_ever_lost`,\n`nothing_comes_twice_here` |",
        "* `retain_on_cancel`, see `engine/a.rs`\n* `not_behind_a_file`",
    ] {
        assert_eq!(found(good), 0, "{good}");
    }
    for bad in
        ["* `engine/b.rs`: `nothing_is_ever_lost`", "`engine/c.rs`", "`engine/a.rs`\n`it_was_called_so_once`"]
    {
        assert_eq!(found(bad), 1, "{bad}");
    }
}

#[test]
fn an_untested_page_is_found() {
    let book = "first \"../docs/first.md\"";
    assert!(snippet_findings("docs/first.md", "```rust\na();\n```", book).is_empty());
    assert_eq!(snippet_findings("docs/second.md", "```rust,no_run\na();\n```", book).len(), 1);
    assert!(snippet_findings("docs/second.md", "```text\na\n```", book).is_empty());
}

#[test]
fn a_promise_that_the_gate_does_not_keep_is_found() {
    let readme = "```console\ncargo run --release --example a   # the job\ncargo test --workspace\n```\ncargo elsewhere\n";
    assert!(
        command_findings(readme, "step cargo run --release --example a\ncargo test --workspace").is_empty()
    );
    assert_eq!(command_findings(readme, "cargo test --workspace").len(), 1);
    assert_eq!(command_findings("nothing", "cargo test").len(), 1);
}

#[test]
fn comments_and_literals_are_blanked_and_nothing_else() {
    let blank = |text: &str| code(text).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(blank("a /* b /* c */ d */ e // f\ng"), "a e g");
    assert_eq!(blank(r#"a("b \" c", 'd', '\'', b'"', 'x)"#), "a( , , , b , 'x)");
    assert_eq!(blank("a(r#\"b \" c\"#, r\"d\", br##\"\"#\"##) + r#type"), "a( , , ) + r#type");
    assert_eq!(code("\"a\nb\"\nc").lines().count(), 3);
}
