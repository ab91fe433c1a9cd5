//! The rules, as functions from text to findings.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    CONFINED, EDGES, FOR_TESTS, LINES_MAX, MARKERS, OS_ALLOWED, OS_MACROS, OS_NAMES, OS_PATHS, OS_STREAMS,
    OS_VALUES, UNSAFE_LEAVES, UNSAFE_WRITTEN,
    rust::{Token, begins_with, code, has_word, paths_in, tokens, without_test_module},
};

/// The dependencies of a manifest: name and specification, of every kind and for every target.
pub fn dependencies(manifest: &toml::Table) -> Vec<(String, toml::Value)> {
    dependencies_of(manifest, &["dependencies", "dev-dependencies", "build-dependencies"])
}

/// Those of some kinds.
fn dependencies_of(manifest: &toml::Table, kinds: &[&str]) -> Vec<(String, toml::Value)> {
    let mut all = Vec::new();
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let targets = targets.into_iter().flat_map(toml::Table::values).filter_map(toml::Value::as_table);
    for table in std::iter::once(manifest).chain(targets) {
        for kind in kinds {
            let Some(list) = table.get(*kind).and_then(toml::Value::as_table) else { continue };
            all.extend(list.iter().map(|(key, spec)| {
                let renamed = spec.get("package").and_then(toml::Value::as_str);
                (renamed.unwrap_or(key).to_owned(), spec.clone())
            }));
        }
    }
    all
}

pub fn edge_findings(path: &str, text: &str) -> Vec<String> {
    let manifest: toml::Table = text.parse().unwrap();
    let name = manifest["package"]["name"].as_str().unwrap();
    let Some((_, allowed)) = EDGES.iter().find(|(package, _)| *package == name) else {
        return vec![format!("{path}: the package `{name}` has no place among the allowed edges")];
    };
    let mut findings = Vec::new();
    for (dependency, _) in dependencies(&manifest) {
        let ours = dependency == "tidemill" || dependency.starts_with("tidemill-");
        if ours && !allowed.contains(&dependency.as_str()) {
            findings.push(format!("{path}: `{name}` must not depend on `{dependency}`"));
        }
        let confined = CONFINED.iter().find(|(confined, ..)| *confined == dependency);
        if let Some((_, packages, why)) = confined
            && !packages.contains(&name)
        {
            findings.push(format!("{path}: `{name}` must not depend on `{dependency}`: {why}"));
        }
    }
    for (dependency, _) in dependencies_of(&manifest, &["dependencies", "build-dependencies"]) {
        let for_tests = FOR_TESTS.iter().find(|(package, _)| *package == dependency);
        if for_tests.is_some_and(|(_, programs)| !programs.contains(&name)) {
            findings.push(format!("{path}: `{dependency}` is for the tests of `{name}` only"));
        }
    }
    findings
}

pub fn manifest_findings(path: &str, text: &str) -> Vec<String> {
    let manifest: toml::Table = text.parse().unwrap();
    let mut findings = Vec::new();
    for key in ["version", "edition", "rust-version", "license", "publish"] {
        let shared = manifest["package"].get(key).and_then(|value| value.get("workspace"));
        if shared.and_then(toml::Value::as_bool) != Some(true) {
            findings.push(format!("{path}: say `{key}.workspace = true`"));
        }
    }
    let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
    if lints.and_then(toml::Value::as_bool) != Some(true) {
        findings.push(format!("{path}: the lints of the workspace are not in force"));
    }
    for (dependency, spec) in dependencies(&manifest) {
        if spec.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
            findings.push(format!("{path}: take the version of `{dependency}` from the workspace"));
        }
    }
    findings
}

/// Finds an identifier in code (not in comments or literals).
pub fn word_findings(path: &str, text: &str, word: &str) -> Vec<String> {
    let code = code(text);
    let found = tokens(&code).into_iter().filter(|token| token.text == word);
    found.map(|token| format!("{path}:{}: names `{word}`", token.line)).collect()
}

/// What calls the operating system: line, and path or macro. Streams and printing macros are all named `print`.
pub fn os_calls(path: &str, text: &str) -> Vec<(usize, String)> {
    if path.ends_with("/tests.rs") || path.contains("/tests/") {
        return Vec::new();
    }
    let code = without_test_module(&code(text));
    let tokens = tokens(&code);
    let mut calls = paths_in(&tokens);
    calls.retain(|(_, called)| {
        let listed = OS_PATHS.iter().any(|start| begins_with(called, start)) || OS_NAMES.contains(&&**called);
        listed && !OS_VALUES.contains(&&**called)
    });
    for (at, token) in tokens.iter().enumerate() {
        let printed =
            OS_MACROS.contains(&token.text) && tokens.get(at + 1).is_some_and(|next| next.text == "!");
        let opened = OS_STREAMS.contains(&token.text) && imported_from_io(&tokens[..at]);
        if printed || opened {
            calls.push((token.line, "print".to_owned()));
        }
    }
    calls
}

pub fn os_findings(path: &str, text: &str) -> Vec<String> {
    let here = OS_ALLOWED.iter().filter(|(prefix, ..)| path.starts_with(prefix));
    let allowed: Vec<&str> = here.flat_map(|(_, what, _)| what.iter().copied()).collect();
    let mut calls = os_calls(path, text);
    calls.retain(|(_, called)| !allowed.iter().any(|allowed| begins_with(called, allowed)));
    let name = |(line, what)| format!("{path}:{line}: `{what}` belongs behind the platform seam");
    calls.into_iter().map(name).collect()
}

/// Whether what comes next is a name of `io`: after `io::`, alone or in a group.
pub fn imported_from_io(before: &[Token<'_>]) -> bool {
    let names = before.iter().rev().skip_while(|token| ![";", "::", "{"].contains(&token.text));
    let mut path = names.skip_while(|token| token.text == "{");
    path.next().is_some_and(|token| token.text == "::") && path.next().is_some_and(|token| token.text == "io")
}

pub fn opening_findings(path: &str, text: &str) -> Vec<String> {
    let says = text
        .strip_prefix("//!")
        .and_then(|rest| rest.lines().next())
        .is_some_and(|line| line.trim().len() > 3);
    if says { Vec::new() } else { vec![format!("{path}: begin with `//!` and what the file is")] }
}

pub fn marker_findings(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for marker in MARKERS {
            if has_word(line, marker) {
                findings.push(format!("{path}:{}: `{marker}`", number + 1));
            }
        }
    }
    findings
}

pub fn unsafe_findings(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let code = code(text);
    let tokens = tokens(&code);
    let uses: Vec<usize> =
        tokens.iter().filter(|token| token.text == "unsafe").map(|token| token.line).collect();
    let opts_in = tokens.windows(3).any(|three| three[0].text == "allow" && three[2].text == "unsafe_code");
    let leaf = UNSAFE_LEAVES.iter().any(|(leaf, _)| *leaf == path);
    let written = UNSAFE_WRITTEN.contains(&path);
    let mut findings = Vec::new();
    if !uses.is_empty() && !leaf && !written {
        findings.push(format!("{path}:{}: `unsafe` outside the listed leaves", uses[0]));
    }
    if opts_in && !leaf && !written {
        findings.push(format!("{path}: allows unsafe code and is not among the listed leaves"));
    }
    if leaf && !opts_in {
        findings.push(format!("{path}: an unsafe leaf says `allow(unsafe_code)`"));
    }
    for line in uses {
        let above = &lines[line.saturating_sub(SAFETY_LINES_MAX)..line];
        if !above.iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety")) {
            findings.push(format!("{path}:{line}: say with `// SAFETY:` why this is sound"));
        }
    }
    findings
}

/// How far above `unsafe` its reason stands at most.
pub const SAFETY_LINES_MAX: usize = 9;

pub fn length_findings(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    if lines <= LINES_MAX { Vec::new() } else { vec![format!("{path}: {lines} lines, at most {LINES_MAX}")] }
}

/// Compares the dependencies of the workspace with the page that argues for them.
///
/// The page has a table under `## In use` and one under `## Chosen, not in use yet`; a row begins with the name in
/// backquotes, and its second cell is the version requirement.
pub fn argument_findings(workspace: &str, members: &[&str], page: &str) -> Vec<String> {
    let workspace: toml::Table = workspace.parse().unwrap();
    let mut used = BTreeSet::new();
    for member in members {
        used.extend(dependencies(&member.parse().unwrap()).into_iter().map(|(name, _)| name));
    }
    let mut rows = BTreeMap::new();
    let mut findings = Vec::new();
    let mut section = "";
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        }
        let Some(row) = line.strip_prefix("| `") else { continue };
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[0].trim_end_matches('`');
        if cells.len() < 4 || cells[2].len() < 20 {
            findings.push(format!("docs/dependencies.md: the row of `{name}` does not argue"));
        }
        if rows.insert(name, (section, cells.get(1).copied().unwrap_or(""))).is_some() {
            findings.push(format!("docs/dependencies.md: `{name}` stands there twice"));
        }
    }
    for (name, spec) in workspace["workspace"]["dependencies"].as_table().unwrap() {
        if name == "tidemill" || name.starts_with("tidemill-") {
            continue;
        }
        let version =
            spec.as_str().or_else(|| spec.get("version").and_then(toml::Value::as_str)).unwrap_or("none");
        let wanted = if used.contains(name) { "In use" } else { "Chosen, not in use yet" };
        match rows.remove(name.as_str()) {
            None => findings.push(format!("docs/dependencies.md: nothing argues for `{name}`")),
            Some((section, _)) if section != wanted => {
                findings.push(format!("docs/dependencies.md: `{name}` belongs under `{wanted}`"));
            }
            Some((_, stated)) if stated != version => {
                findings.push(format!("docs/dependencies.md: `{name}` is {version}, not {stated}"));
            }
            Some(_) => {}
        }
    }
    findings.extend(rows.keys().map(|name| format!("docs/dependencies.md: `{name}` is no dependency")));
    findings
}

/// Follows the links of a page; `look` gives the text of a file of the repository, empty for other things that exist.
pub fn link_findings<'t>(path: &str, text: &str, look: impl Fn(&str) -> Option<&'t str>) -> Vec<String> {
    let mut findings = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        let links = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !fenced && !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.to_owned() } else { join(path, file) };
            let here = format!("{path}:{}: `{link}`", number + 1);
            match if file.is_empty() { Some(text) } else { look(&target) } {
                None => findings.push(format!("{here} leads nowhere")),
                Some(page) if !anchor.is_empty() && !headings(page).any(|heading| heading == anchor) => {
                    findings.push(format!("{here} names a heading that is not there"));
                }
                Some(_) => {}
            }
        }
    }
    findings
}

/// A relative link seen from the page `from`.
pub fn join(from: &str, link: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The anchors of a page's headings, as they are made on the web.
pub fn headings(page: &str) -> impl Iterator<Item = String> + '_ {
    page.lines().filter(|line| line.starts_with('#')).map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-' || *c == '_');
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

/// What the path of a file begins with that is written from the root of the repository.
const MEMBERS: [&str; 5] = ["bench/", "engine/", "examples/", "operators/", "storage/"];

/// Tests that a page names, in code marks behind the file that they are in, have to be there. `look` gives the text of a file of the
/// repository. Of several files, written as `a/{b,c}.rs`, one has to have the test.
pub fn named_test_findings<'t>(
    path: &str,
    text: &str,
    look: impl Fn(&str) -> Option<&'t str>,
) -> Vec<String> {
    let mut findings = Vec::new();
    let is_test = |name: &str| {
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        name.bytes().all(is_name) && name.matches('_').count() >= 3
    };
    for block in blocks(text) {
        let mut files: Vec<String> = Vec::new();
        for token in block.split('`').skip(1).step_by(2) {
            if token.ends_with(".rs") {
                // Others are written from where the page is about.
                let is_whole = MEMBERS.iter().any(|member| token.starts_with(member));
                files = if is_whole { unfolded(token) } else { Vec::new() };
                let gone = files.iter().filter(|file| look(file).is_none());
                findings.extend(gone.map(|file| format!("{path}: there is no `{file}`")));
            } else if is_test(token) && !files.is_empty() {
                let name = format!("fn {token}(");
                if !files.iter().any(|file| look(file).is_some_and(|text| text.contains(&name))) {
                    findings.push(format!("{path}: no test `{token}` is in {}", files.join(", ")));
                }
            }
        }
    }
    findings
}

/// The paragraphs, points and rows of a page.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    for line in text.lines() {
        if line.is_empty() || line.starts_with(['*', '|', '#']) {
            blocks.push(String::new());
        }
        if let Some(block) = blocks.last_mut() {
            *block += &format!("{line}\n");
        }
    }
    blocks
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn unfolded(path: &str) -> Vec<String> {
    match path.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?))) {
        Some((before, (names, behind))) => {
            names.split(',').map(|name| format!("{before}{name}{behind}")).collect()
        }
        None => vec![path.to_owned()],
    }
}

/// Every page that shows Rust has to be named in the module that makes tests of the pages.
pub fn snippet_findings(path: &str, text: &str, book: &str) -> Vec<String> {
    let shows = text.lines().any(|line| line.trim_start().starts_with("```rust"));
    if !shows || book.contains(&format!("\"../{path}\"")) {
        return Vec::new();
    }
    vec![format!("{path}: its snippets are not tested, name it in src/book.rs")]
}

/// Every `cargo` command that the README shows has to be in the gate's script.
pub fn command_findings(readme: &str, gate: &str) -> Vec<String> {
    let mut fenced = false;
    let mut commands = Vec::new();
    for line in readme.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if let Some(command) = line.strip_prefix("cargo ").filter(|_| fenced) {
            commands.push(format!("cargo {}", command.split('#').next().unwrap_or("").trim()));
        }
    }
    if commands.len() < 2 {
        return vec![format!("README.md: shows {} commands, not the example and the tests", commands.len())];
    }
    let missing = commands.iter().filter(|command| !gate.contains(command.as_str()));
    missing.map(|command| format!(".ci/run: does not run `{command}`, which README.md shows")).collect()
}
