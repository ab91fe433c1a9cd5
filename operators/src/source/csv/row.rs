//! Cuts a line into fields.

use csv_core::ReadRecordResult;

/// The fields of one row, in one text.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    text: &'a str,
    /// Where each field starts, and where one behind the last would.
    starts: &'a [u32],
    /// Bytes between fields: a delimiter, or nothing when the quotes are taken off.
    gap: u32,
}

impl<'a> Row<'a> {
    /// Number of fields.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The field of this index; empty when there is none.
    #[inline]
    pub(super) fn field(&self, index: usize) -> &'a str {
        let begin = self.starts[index] as usize;
        let end = (self.starts[index + 1] - self.gap) as usize;
        self.text.get(begin..end).unwrap_or_default()
    }
}

/// Cuts lines, with buffers that are used again.
pub(super) struct RowCutter {
    delimiter: u8,
    starts: Vec<u32>,
    quoted: csv_core::Reader,
    unquoted: Vec<u8>,
    text: String,
    ends: Vec<usize>,
}

impl RowCutter {
    pub(super) fn new(delimiter: u8) -> Self {
        Self {
            delimiter,
            starts: Vec::new(),
            quoted: csv_core::ReaderBuilder::new().delimiter(delimiter).build(),
            unquoted: Vec::new(),
            text: String::new(),
            ends: Vec::new(),
        }
    }

    /// Cuts a line that holds no quote mark, and must have so many columns.
    #[inline]
    pub(super) fn cut_plain<'a>(&'a mut self, line: &'a str, columns: usize) -> Result<Row<'a>, String> {
        if self.starts.len() != columns + 1 + SLACK {
            self.starts.resize(columns + 1 + SLACK, 0);
        }
        let found = cut_fields(line.as_bytes(), self.delimiter, &mut self.starts);
        if found != columns {
            return Err(wrong_count(found, columns));
        }
        Ok(Row { text: line, starts: &self.starts[..=columns], gap: 1 })
    }

    /// Cuts any line, and takes quotes off.
    pub(super) fn cut_quoted<'a>(&'a mut self, line: &str, columns: usize) -> Result<Row<'a>, String> {
        let found = self.unquote(line)?;
        if found != columns {
            return Err(wrong_count(found, columns));
        }
        self.starts.clear();
        self.starts.push(0);
        self.starts.extend(self.ends[..found].iter().map(|&end| end as u32));
        Ok(Row { text: &self.text, starts: &self.starts, gap: 0 })
    }

    /// Cuts a line with any number of columns: a header.
    pub(super) fn cut_all(&mut self, line: &str) -> Result<Vec<String>, String> {
        let found = self.unquote(line)?;
        let row = self.cut_quoted(line, found)?;
        Ok((0..found).map(|index| row.field(index).to_string()).collect())
    }

    /// Puts the fields of a line end to end into `text`; returns their number.
    fn unquote(&mut self, line: &str) -> Result<usize, String> {
        self.quoted.reset();
        self.unquoted.resize(line.len() + 1, 0);
        self.ends.resize(line.len() + 2, 0);
        let (mut written, mut found) = (0, 0);
        // The line feed is fed too: a row that goes on behind it has a quote left open.
        let mut input = line.as_bytes();
        let mut fed_end = false;
        loop {
            let (result, _, wrote, ended) =
                self.quoted.read_record(input, &mut self.unquoted[written..], &mut self.ends[found..]);
            written += wrote;
            found += ended;
            match result {
                ReadRecordResult::Record => break,
                ReadRecordResult::InputEmpty if !fed_end => {
                    fed_end = true;
                    input = b"\n";
                }
                ReadRecordResult::End => break,
                ReadRecordResult::InputEmpty
                | ReadRecordResult::OutputFull
                | ReadRecordResult::OutputEndsFull => {
                    return Err("a quoted field does not end on its line (`multiline(true)` reads \
                                files whose fields hold line feeds)"
                        .into());
                }
            }
        }
        let mut bytes = std::mem::take(&mut self.text).into_bytes();
        bytes.clear();
        bytes.extend_from_slice(&self.unquoted[..written]);
        // What is left of valid text without some of its ASCII marks is valid.
        self.text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
        Ok(found)
    }
}

#[cold]
fn wrong_count(found: usize, columns: usize) -> String {
    format!("it has {found} fields, not {columns}")
}

/// A byte in every byte of a word.
const fn spread(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// A one in the top bit of every byte of `word` that is zero; exact, unlike the shorter form that borrows.
#[inline]
const fn zero_bytes(word: u64) -> u64 {
    const LOW: u64 = spread(0x7f);
    !(((word & LOW) + LOW) | word | LOW)
}

/// Starts that are written for a word at once, whether it holds so many delimiters or not: a branch per
/// delimiter would be guessed wrong once per word.
const STARTS_AT_ONCE: usize = 4;

/// Room behind the starts of the expected fields, for those that are written and do not count.
const SLACK: usize = STARTS_AT_ONCE;

/// Notes where the fields of `line` start, and where one behind the last would; returns their number, which
/// may be above what `starts` holds.
#[inline]
fn cut_fields(line: &[u8], delimiter: u8, starts: &mut [u32]) -> usize {
    let pattern = spread(delimiter);
    let (words, rest) = line.as_chunks::<8>();
    let mut found = 1;
    let mut base = 0;
    for word in words {
        found = note_starts(zero_bytes(u64::from_le_bytes(*word) ^ pattern), base, found, starts);
        base += 8;
    }
    // Filled with NUL, which delimits nothing.
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    found = note_starts(zero_bytes(u64::from_le_bytes(last) ^ pattern), base, found, starts);
    if let Some(end) = starts.get_mut(found) {
        *end = line.len() as u32 + 1;
    }
    found
}

/// Notes a start behind each marked byte of the word at `base`, and returns the number of fields so far.
#[inline]
fn note_starts(mut marks: u64, base: u32, found: usize, starts: &mut [u32]) -> usize {
    // The marks are top bits of bytes: the product sums them up in its top byte.
    let count = ((marks >> 7).wrapping_mul(spread(1)) >> 56) as usize;
    if let Some(slots) = starts.get_mut(found..).and_then(|slots| slots.first_chunk_mut::<STARTS_AT_ONCE>()) {
        for slot in slots {
            *slot = base + marks.trailing_zeros() / 8 + 1;
            marks &= marks.wrapping_sub(1);
        }
    }
    if count > STARTS_AT_ONCE {
        for slot in starts.iter_mut().skip(found + STARTS_AT_ONCE).take(count - STARTS_AT_ONCE) {
            *slot = base + marks.trailing_zeros() / 8 + 1;
            marks &= marks.wrapping_sub(1);
        }
    }
    found + count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_cuts_equal_those_of_csv_core() {
        let mut cutter = RowCutter::new(b',');
        let fields = ["", "a", "bc", "+-.,"[..3].into(), "12345678", "123456789 and more", "é", "\u{80}"];
        for seed in 0..4096_usize {
            let count = 1 + seed % 23;
            let row: Vec<&str> =
                (0..count).map(|at| fields[(seed / (at + 1) + at * 3) % fields.len()]).collect();
            let line = row.join(",");
            if line.is_empty() {
                continue;
            }
            assert_eq!(cutter.cut_plain(&line, count + 1).err(), Some(wrong_count(count, count + 1)));
            let plain = cutter.cut_plain(&line, count).unwrap();
            assert_eq!(plain.len(), count);
            let plain: Vec<String> = (0..count).map(|at| plain.field(at).to_string()).collect();
            assert_eq!(plain, row);
            assert_eq!(cutter.cut_all(&line).unwrap(), row);
        }
    }

    #[test]
    fn quotes_are_taken_off_and_open_ones_found() {
        let mut cutter = RowCutter::new(b',');
        assert_eq!(
            cutter.cut_all("\"a,b\",c,\"say \"\"x\"\"\",\"\"").unwrap(),
            ["a,b", "c", "say \"x\"", ""]
        );
        assert_eq!(cutter.cut_all("\"a\nb\",c").unwrap(), ["a\nb", "c"]);
        assert!(cutter.cut_all(r#"a,"open"#).unwrap_err().contains("does not end"));
        assert_eq!(cutter.cut_all(r#"5" pipe,x"#).unwrap(), ["5\" pipe", "x"]);
    }

    #[test]
    fn a_wrong_number_of_fields_is_told() {
        let mut cutter = RowCutter::new(b',');
        for line in ["a,b", "a,b,c,d", "a", ",,,,,,,,,,,,,,,,,,,,", "a,b,c,,,,,,,,,"] {
            let reason = cutter.cut_plain(line, 3).err().unwrap();
            assert!(reason.contains("fields, not 3"), "{reason}");
        }
    }
}
