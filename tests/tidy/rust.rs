//! Reading Rust, a little: code without comments and literals, its words, and the paths that it names.

/// The text with comments and the contents of literals blanked, line for line.
pub fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let inside_word = at > 0 && is_word(bytes[at - 1]);
        let len = if rest.starts_with(b"//") {
            rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            comment_length(rest)
        } else if let Some(length) = raw_string_length(rest).filter(|_| !inside_word) {
            length
        } else if rest[0] == b'"' {
            quoted_length(rest, b'"')
        } else if rest[0] == b'\'' && is_character(&text[at..]) {
            quoted_length(rest, b'\'')
        } else {
            at += 1;
            continue;
        };
        for byte in &mut out[at..at + len] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += len;
    }
    String::from_utf8(out).unwrap()
}

pub fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

/// Length of a block comment, with those nested in it.
pub fn comment_length(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of a raw string, prefix and hashes included.
pub fn raw_string_length(bytes: &[u8]) -> Option<usize> {
    let prefix = [&b"br"[..], b"cr", b"r"].into_iter().find(|prefix| bytes.starts_with(prefix))?.len();
    let hashes = bytes[prefix..].iter().take_while(|byte| **byte == b'#').count();
    let open = prefix + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let close = [&b"\""[..], &vec![b'#'; hashes]].concat();
    let inside = bytes[open + 1..].windows(close.len()).position(|window| window == close);
    Some(inside.map_or(bytes.len(), |inside| open + 1 + inside + close.len()))
}

/// Length of a literal in quotes, escapes honoured.
pub fn quoted_length(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// Whether a quote begins a character and not a lifetime.
pub fn is_character(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    let first = chars.next();
    first == Some('\\') || (first != Some('\'') && chars.next() == Some('\''))
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token<'t> {
    pub line: usize,
    pub text: &'t str,
}

/// Words, `::` and single signs.
pub fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !(c == '_' || c.is_alphanumeric())).unwrap_or(rest.len());
            let length = if word > 0 {
                word
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            tokens.push(Token { line: number + 1, text: &rest[..length] });
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// Every path that begins with a crate's name, those in groups of `use` unfolded.
pub fn paths_in(tokens: &[Token<'_>]) -> Vec<(usize, String)> {
    const CRATES: [&str; 5] = ["std", "libc", "glommio", "core_affinity", "io_uring"];
    let mut paths = Vec::new();
    for at in 0..tokens.len() {
        let begins =
            at < 2 || tokens[at - 1].text != "::" || !tokens[at - 2].text.ends_with(char::is_alphanumeric);
        let follows = tokens.get(at + 1).is_some_and(|next| next.text == "::");
        if CRATES.contains(&tokens[at].text) && begins && follows {
            unfold(tokens, at, "", &mut paths);
        }
    }
    paths
}

/// Reads one path or group from `at` on; returns the place behind it.
pub fn unfold(tokens: &[Token<'_>], mut at: usize, prefix: &str, paths: &mut Vec<(usize, String)>) -> usize {
    if tokens.get(at).is_some_and(|token| token.text == "{") {
        at += 1;
        while at < tokens.len() && tokens[at].text != "}" {
            let next = unfold(tokens, at, prefix, paths);
            at = if tokens.get(next).is_some_and(|token| token.text == "as") { next + 2 } else { next };
            if tokens.get(at).is_some_and(|token| token.text == ",") {
                at += 1;
            }
        }
        return at + 1;
    }
    let Some(token) = tokens.get(at) else { return at };
    let path = if prefix.is_empty() { token.text.to_owned() } else { format!("{prefix}::{}", token.text) };
    let goes_on = tokens.get(at + 1).is_some_and(|next| next.text == "::")
        && tokens.get(at + 2).is_some_and(|next| next.text != "<");
    if goes_on {
        return unfold(tokens, at + 2, &path, paths);
    }
    paths.push((token.line, path));
    at + 1
}

pub fn begins_with(path: &str, start: &str) -> bool {
    path.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Blanks the module of unit tests: from its attribute to the first brace at the start of a line.
pub fn without_test_module(code: &str) -> String {
    let Some(start) = code.find("\n#[cfg(test)]\nmod tests {") else { return code.to_owned() };
    let length = code[start..].find("\n}").map_or(code.len() - start, |length| length + 2);
    let blank: String = code[start..start + length].chars().filter(|c| *c == '\n').collect();
    format!("{}{blank}{}", &code[..start], &code[start + length..])
}

/// Whether `word` stands in `text`, with no letter, digit or underscore on either side.
pub fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let bytes = text.as_bytes();
        let end = at + word.len();
        (at == 0 || !is_word(bytes[at - 1])) && (end >= bytes.len() || !is_word(bytes[end]))
    })
}
