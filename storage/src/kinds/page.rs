//! Pages: elements archived one after another in bytes, so that appending one neither restores nor moves the others.
//!
//! The layout is stored and therefore **frozen**:
//!
//! ```text
//! │ element │ element │ … free … │ … root 1 │ root 0 │ used: u32 │ count: u32 │   all little-endian
//! ```
//!
//! Elements lie from the front, each aligned as its type wants it relative to the page. Where elements vary in size
//! ([`Record::FIXED`] is false) the places of their roots grow from the back towards them; else element `i` is at `i` times
//! its size. The top bit of `count` says that the page is *closed*: an element did not fit, and those
//! after it must not overtake it.
//!
//! A page grows by doubling up to [`PAGE_BYTES_MAX`], so that most appends keep its length and a store updates it in place.
//! An element too long for that gets a page for itself.

use std::{borrow::Cow, marker::PhantomData};

use rkyv::{
    Archive, Deserialize, Place, Serialize,
    rancor::{Error, Source},
    vec::{ArchivedVec, VecResolver},
};

use crate::{
    record::{Record, RecordDeserializer, RecordError, RecordSerializer, access, from_archived},
    state::{Migration, StateError, fault},
    writer::RecordWriter,
};

/// Length of a page of several elements at most, in bytes.
pub const PAGE_BYTES_MAX: usize = 1024;
/// Length of the shortest page, in bytes.
const PAGE_BYTES_MIN: usize = 64;
/// `used` and `count`.
const FOOTER_BYTES: usize = 8;
const ROOT_BYTES: usize = size_of::<u32>();
const CLOSED: u32 = 1 << 31;
/// No archived type wants more.
const ALIGN_MAX: usize = 16;

const _: () = assert!(PAGE_BYTES_MIN > FOOTER_BYTES && PAGE_BYTES_MAX.is_power_of_two());

/// Some elements of a list.
pub struct Page<T> {
    bytes: Vec<u8>,
    element: PhantomData<fn() -> T>,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { bytes: Vec::new(), element: PhantomData }
    }
}

impl<T: Record> Page<T> {
    /// Appends an element behind the others, unless it fits only a new page. `scratch` is overwritten.
    ///
    /// # Panics
    /// Unwinds with [`StateError::Record`] when the page is damaged or the element cannot be written.
    pub fn push(&mut self, element: &T, scratch: &mut RecordWriter) -> bool {
        self.push_within(PAGE_BYTES_MAX, element, scratch)
    }

    fn push_within(&mut self, bytes_max: usize, element: &T, scratch: &mut RecordWriter) -> bool {
        let Layout { used, count, closed } = self.layout();
        if closed {
            return false;
        }
        // Written as it will lie relative to a multiple of the alignment: archives may be moved by such.
        let before = used % ALIGN_MAX;
        scratch.reset(0);
        scratch.append_bytes(&[0; ALIGN_MAX][..before]);
        let root = match scratch.append(element) {
            Ok(root) => used - before + root,
            Err(source) => fault(RecordError::Write { record: T::schema(), source }.into()),
        };
        let written = &scratch.bytes()[before..];
        let used_after = used + written.len();
        let roots = if T::FIXED { 0 } else { ROOT_BYTES * (count + 1) };
        let needed = used_after + roots + FOOTER_BYTES;
        if needed > bytes_max && count > 0 {
            self.set_count(count as u32 | CLOSED);
            return false;
        }
        self.grow(needed, used);
        self.bytes[used..used_after].copy_from_slice(written);
        if !T::FIXED {
            let at = root_at(self.bytes.len(), count);
            self.bytes[at..at + ROOT_BYTES].copy_from_slice(&(root as u32).to_le_bytes());
        }
        let at = self.bytes.len() - FOOTER_BYTES;
        self.bytes[at..at + 4].copy_from_slice(&(used_after as u32).to_le_bytes());
        self.set_count(count as u32 + 1);
        true
    }

    fn layout(&self) -> Layout {
        match Layout::of::<T>(&self.bytes) {
            Ok(layout) => layout,
            Err(error) => fault(error.into()),
        }
    }

    fn set_count(&mut self, count: u32) {
        let at = self.bytes.len() - 4;
        self.bytes[at..].copy_from_slice(&count.to_le_bytes());
    }

    /// Makes room for `needed` bytes, of which the first `used` are taken; what is at the end moves with the end.
    fn grow(&mut self, needed: usize, used: usize) {
        let before = self.bytes.len();
        if needed <= before {
            return;
        }
        let len = if needed <= PAGE_BYTES_MAX {
            needed.next_power_of_two().max(PAGE_BYTES_MIN)
        } else {
            needed.next_multiple_of(ALIGN_MAX)
        };
        // Places in a page are 32 bits.
        if len > (CLOSED - 1) as usize {
            fault(StateError::TooLong { what: "value", bytes: len as u64, bytes_max: u64::from(CLOSED - 1) });
        }
        self.bytes.resize(len, 0);
        let end = len - (before - used);
        self.bytes.copy_within(used..before, end);
        self.bytes[used..end.min(before)].fill(0);
    }
}

/// Where the place of root `i` is in a page of `len` bytes.
#[inline]
fn root_at(len: usize, i: usize) -> usize {
    len - FOOTER_BYTES - ROOT_BYTES * (i + 1)
}

/// What a page's footer says.
struct Layout {
    used: usize,
    count: usize,
    closed: bool,
}

/// What is wrong with a page.
#[derive(Debug, thiserror::Error)]
#[error("a page of {len} bytes cannot hold {count} elements of {used} bytes together")]
struct PageError {
    len: usize,
    count: usize,
    used: usize,
}

impl Layout {
    fn of<T: Record>(bytes: &[u8]) -> Result<Self, RecordError> {
        let Some((elements, footer)) = bytes.split_last_chunk::<FOOTER_BYTES>() else {
            return match bytes.len() {
                0 => Ok(Self { used: 0, count: 0, closed: false }),
                len => Err(invalid::<T>(PageError { len, count: 0, used: 0 })),
            };
        };
        let [a, b, c, d, e, f, g, h] = *footer;
        let (used, count) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let (used, closed, count) = (used as usize, count & CLOSED != 0, (count & !CLOSED) as usize);
        let fits = if T::FIXED {
            used == count.saturating_mul(size_of::<T::Archived>()) && used <= elements.len()
        } else {
            count.saturating_mul(ROOT_BYTES).saturating_add(used) <= elements.len()
        };
        if fits {
            Ok(Self { used, count, closed })
        } else {
            Err(invalid::<T>(PageError { len: bytes.len(), count, used }))
        }
    }
}

fn invalid<T: Record>(error: PageError) -> RecordError {
    RecordError::Invalid { record: Page::<T>::schema(), source: Error::new(error) }
}

/// What to say of a page that is not there.
#[cold]
pub(super) fn missing<T: Record>(number: u32) -> RecordError {
    #[derive(Debug, thiserror::Error)]
    #[error("page {number} of the list is not there; restore from an older snapshot")]
    struct Missing {
        number: u32,
    }
    RecordError::Invalid { record: Page::<T>::schema(), source: Error::new(Missing { number }) }
}

/// Number of elements in a page.
///
/// # Errors
/// When the bytes are no page of these elements.
pub fn count<T: Record>(page: &[u8]) -> Result<usize, RecordError> {
    Layout::of::<T>(page).map(|layout| layout.count)
}

/// Visits the elements of a page in order until `visit` returns false; whether it never did. They are read in place if the
/// page lies aligned, else in `scratch`.
///
/// # Errors
/// When the bytes are no page of these elements.
pub fn visit<T: Record>(
    page: &[u8],
    scratch: &mut RecordWriter,
    mut visit: impl FnMut(&T::Archived) -> bool,
) -> Result<bool, RecordError> {
    let Layout { used, count, .. } = Layout::of::<T>(page)?;
    // Parts of an element that lie out of line may want more than its root.
    let align = if T::FIXED { align_of::<T::Archived>() } else { ALIGN_MAX };
    let elements = if page.as_ptr().addr().is_multiple_of(align) {
        &page[..used]
    } else {
        scratch.reset(0);
        scratch.append_bytes(&page[..used]);
        scratch.bytes()
    };
    for i in 0..count {
        if !visit(access::<T>(elements, root_of::<T>(page, i))?) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where element `i` has its root.
#[inline]
fn root_of<T: Record>(page: &[u8], i: usize) -> usize {
    if T::FIXED {
        return i * size_of::<T::Archived>();
    }
    let at = root_at(page.len(), i);
    let mut root = [0; ROOT_BYTES];
    root.copy_from_slice(&page[at..at + ROOT_BYTES]);
    u32::from_le_bytes(root) as usize
}

/// Element `i` of a page that lies at a multiple of 16 bytes.
///
/// # Errors
/// When the bytes are no page of these elements, or lie elsewhere.
///
/// # Panics
/// When the page has no such element.
pub fn get<T: Record>(page: &[u8], i: usize) -> Result<&T::Archived, RecordError> {
    let Layout { used, count, .. } = Layout::of::<T>(page)?;
    assert!(i < count, "element {i} of {count}");
    access::<T>(&page[..used], root_of::<T>(page, i))
}

/// Reads pages of `Old` elements as pages of `T`, by what `migrate` makes of each element.
pub fn migration<Old: Record, T: Record>(migrate: impl Fn(Old) -> T + 'static) -> Migration<Page<T>> {
    Migration {
        from: Page::<Old>::schema().into_owned(),
        migrate: Box::new(move |bytes| {
            let root = crate::record::last_root::<Page<Old>>(bytes.len()).unwrap_or(usize::MAX);
            let old = access::<Page<Old>>(bytes, root)?;
            let (mut page, mut failed) = (Page::default(), None);
            let (mut scratch, mut written) = (RecordWriter::default(), RecordWriter::default());
            visit::<Old>(old, &mut scratch, |element| {
                match from_archived::<Old>(element) {
                    // Elements that were together stay so, even if they are longer now.
                    Ok(element) => assert!(page.push_within(usize::MAX, &migrate(element), &mut written)),
                    Err(error) => failed = Some(error),
                }
                failed.is_none()
            })?;
            failed.map_or(Ok(page), Err)
        }),
    }
}

impl<T: Record> Archive for Page<T> {
    type Archived = ArchivedVec<u8>;
    type Resolver = VecResolver;

    fn resolve(&self, resolver: VecResolver, out: Place<ArchivedVec<u8>>) {
        ArchivedVec::resolve_from_slice(&self.bytes, resolver, out);
    }
}

impl<T: Record> Serialize<RecordSerializer> for Page<T> {
    fn serialize(&self, serializer: &mut RecordSerializer) -> Result<VecResolver, Error> {
        ArchivedVec::<u8>::serialize_from_slice(&self.bytes, serializer)
    }
}

impl<T: Record> Deserialize<Page<T>, RecordDeserializer> for ArchivedVec<u8> {
    fn deserialize(&self, _deserializer: &mut RecordDeserializer) -> Result<Page<T>, Error> {
        Ok(Page { bytes: self.to_vec(), element: PhantomData })
    }
}

impl<T: Record> Record for Page<T> {
    const SCHEMA_VERSION: u32 = 1;
    const FIXED: bool = false;

    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("List<{}>", T::schema()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{restore, to_bytes};

    fn elements<T: Record>(page: &[u8]) -> Vec<T> {
        let mut elements = Vec::new();
        let mut keep = |element: &T::Archived| elements.push(restore::<T>(element));
        assert!(visit::<T>(page, &mut RecordWriter::default(), |element| (keep(element), true).1).unwrap());
        elements
    }

    fn fill<T: Record>(values: impl IntoIterator<Item = T>) -> Page<T> {
        let (mut page, mut scratch) = (Page::default(), RecordWriter::default());
        assert!(values.into_iter().all(|value| page.push(&value, &mut scratch)));
        page
    }

    #[test]
    fn pages_are_frozen() {
        let page = fill([1_u16, 2]);
        let mut expected = [0; 64];
        expected[..4].copy_from_slice(&[1, 0, 2, 0]);
        expected[56] = 4;
        expected[60] = 2;
        assert_eq!(page.bytes, expected);
        let page = fill(["a".to_owned(), "b".to_owned()]);
        let mut expected = [0; 64];
        expected[..8].copy_from_slice(b"a\xff\xff\xff\xff\xff\xff\xff");
        expected[8..16].copy_from_slice(b"b\xff\xff\xff\xff\xff\xff\xff");
        // Roots from the back: 8, 0; then 16 bytes used by 2 elements.
        expected[48..].copy_from_slice(&[8, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(page.bytes, expected);
    }

    #[test]
    fn elements_come_back_wherever_the_page_lies() {
        let words: Vec<(String, Vec<u128>)> =
            (0..6).map(|i| ("long enough to be out of line ".repeat(i % 3), vec![i as u128; i])).collect();
        let page = fill(words.clone());
        let mut moved = vec![0; page.bytes.len() + ALIGN_MAX];
        for offset in 0..ALIGN_MAX {
            moved[offset..offset + page.bytes.len()].copy_from_slice(&page.bytes);
            assert_eq!(elements::<(String, Vec<u128>)>(&moved[offset..offset + page.bytes.len()]), words);
        }
    }

    #[test]
    fn a_full_page_stays_closed_and_a_long_element_has_its_own() {
        let mut scratch = RecordWriter::default();
        let mut page = fill(["x".repeat(600)]);
        assert!(!page.push(&"y".repeat(600), &mut scratch));
        assert!(!page.push(&"short".to_owned(), &mut scratch), "it must not overtake the one before");
        assert_eq!(elements::<String>(&page.bytes), ["x".repeat(600)]);
        let long = fill(["z".repeat(5000)]);
        assert_eq!(elements::<String>(&long.bytes), ["z".repeat(5000)]);
        let numbers = (0..).take_while({
            let mut page = Page::default();
            move |i: &u64| page.push(i, &mut RecordWriter::default())
        });
        assert_eq!(numbers.count(), (PAGE_BYTES_MAX - FOOTER_BYTES) / 8);
    }

    #[test]
    fn a_migration_keeps_elements_together() {
        let page = fill(0..100_u64);
        let archived = to_bytes(&page).unwrap();
        let migration = migration::<u64, String>(|number| format!("number {number} is longer now"));
        assert_eq!(migration.from, "List<u64>");
        let migrated = (migration.migrate)(archived.bytes()).unwrap();
        let expected: Vec<String> = (0..100).map(|i| format!("number {i} is longer now")).collect();
        assert_eq!(elements::<String>(&migrated.bytes), expected);
        let migrated = (super::migration::<u64, u128>(u128::from).migrate)(archived.bytes()).unwrap();
        assert_eq!(elements::<u128>(&migrated.bytes), (0..100).collect::<Vec<u128>>());
    }

    #[test]
    fn damaged_pages_are_refused() {
        let page = fill((0..9).map(|i| "word".repeat(i)));
        for at in 0..page.bytes.len() {
            for bit in 0..8 {
                let mut damaged = page.bytes.clone();
                damaged[at] ^= 1 << bit;
                // Whatever it reads as, it does not read outside.
                let _ = visit::<String>(&damaged, &mut RecordWriter::default(), |_| true);
            }
        }
        for len in 1..page.bytes.len() {
            let _ = visit::<String>(&page.bytes[..len], &mut RecordWriter::default(), |_| true);
            let _ = count::<u64>(&page.bytes[..len]);
        }
        assert!(count::<u64>(&[1, 2, 3]).is_err());
    }
}
